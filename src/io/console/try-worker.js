// Shows each push message as a notification, and tells the page, in case the desktop hides those.
"use strict";

self.addEventListener("push", (event) => {
  const body = event.data ? event.data.text() : "a push message without a body";
  event.waitUntil((async () => {
    for (const page of await self.clients.matchAll({ includeUncontrolled: true })) {
      page.postMessage(body);
    }
    await self.registration.showNotification("edgepush", { body });
  })());
});
self.addEventListener("notificationclick", (event) => event.notification.close());
