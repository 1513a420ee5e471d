"use strict";

// Reports to the test go out one after the other, so that they arrive in the order of the events.
let lastReport = Promise.resolve();

/** Tells the test of one event; the event counts as handled when the test has it. */
function report(event, payload) {
  const body = JSON.stringify({ type: event.type, scope: self.registration.scope, payload });
  lastReport = lastReport.then(() => fetch("/event", { method: "POST", body }));
  event.waitUntil(lastReport);
}

self.addEventListener("push", (event) => report(event, event.data ? event.data.text() : null));
self.addEventListener("pushsubscriptionchange", (event) => report(event, null));
