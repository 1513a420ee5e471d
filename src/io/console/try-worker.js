// Shows each push message as a notification.
"use strict";

self.addEventListener("push", (event) => {
  const body = event.data ? event.data.text() : "a push message without a body";
  event.waitUntil(self.registration.showNotification("edgepush", { body, requireInteraction: true }));
});
self.addEventListener("notificationclick", (event) => event.notification.close());
