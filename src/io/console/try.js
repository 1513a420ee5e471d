// Subscribes this browser and sends to it: what an application's page and its server do, in one.
"use strict";

const $ = (id) => document.getElementById(id);
const say = (text) => { $("state").textContent = text; };
const base64url = (bytes) =>
  btoa(String.fromCharCode(...new Uint8Array(bytes))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");

const pushAddress = document.documentElement.dataset.pushAddress;
$("prefs").textContent =
  `dom.push.serverURL                        ${pushAddress}\n` +
  "dom.push.testing.allowInsecureServerURL   true";

async function subscribe() {
  if (await Notification.requestPermission() !== "granted") {
    return say("The browser refuses notifications for this page; allow them and try again.");
  }
  say("Subscribing …");
  await navigator.serviceWorker.register("/try-worker.js");
  const worker = await navigator.serviceWorker.ready;
  show(await worker.pushManager.subscribe());
}

function show(subscription) {
  const keys = { p256dh: base64url(subscription.getKey("p256dh")), auth: base64url(subscription.getKey("auth")) };
  const info = JSON.stringify({ endpoint: subscription.endpoint, keys });
  $("curl").textContent = `curl -i -X POST -H 'TTL: 60' ${subscription.endpoint}`;
  $("python").textContent =
    "pip install pywebpush\npython3 - <<'END'\nfrom pywebpush import webpush\n" +
    `webpush(${info}, "Hello from Python", ttl=60)\nEND`;
  $("more").hidden = false;
  $("send").disabled = false;
  const host = new URL(subscription.endpoint).host;
  say(`Subscribed at ${host}.` + (host.endsWith("mozilla.com") ? " That is Mozilla's push service: set the two preferences above and subscribe again." : ""));
}

// RFC 8291: one record of aes128gcm under a fresh key pair.
async function encrypt(text, subscription) {
  const p256 = { name: "ECDH", namedCurve: "P-256" };
  const theirs = new Uint8Array(subscription.getKey("p256dh"));
  const pair = await crypto.subtle.generateKey(p256, true, ["deriveBits"]);
  const ours = new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey));
  const peer = await crypto.subtle.importKey("raw", theirs, p256, false, []);
  const secret = await crypto.subtle.deriveBits({ name: "ECDH", public: peer }, pair.privateKey, 256);
  const salt = crypto.getRandomValues(new Uint8Array(16));
  const ascii = (string) => new TextEncoder().encode(string);
  const join = (...parts) => new Uint8Array(parts.flatMap((part) => [...part]));
  const hkdf = async (salt, secret, info, bytes) => {
    const key = await crypto.subtle.importKey("raw", secret, "HKDF", false, ["deriveBits"]);
    const bits = await crypto.subtle.deriveBits({ name: "HKDF", hash: "SHA-256", salt, info }, key, bytes * 8);
    return new Uint8Array(bits);
  };
  const seed = await hkdf(subscription.getKey("auth"), secret, join(ascii("WebPush: info\0"), theirs, ours), 32);
  const cipherKey = await hkdf(salt, seed, ascii("Content-Encoding: aes128gcm\0"), 16);
  const nonce = await hkdf(salt, seed, ascii("Content-Encoding: nonce\0"), 12);
  const key = await crypto.subtle.importKey("raw", cipherKey, "AES-GCM", false, ["encrypt"]);
  const plain = join(ascii(text), [2]);
  const sealed = new Uint8Array(await crypto.subtle.encrypt({ name: "AES-GCM", iv: nonce }, key, plain));
  return join(salt, [0, 0, 16, 0], [ours.length], ours, sealed);
}

async function send() {
  const worker = await navigator.serviceWorker.ready;
  const subscription = await worker.pushManager.getSubscription();
  const started = performance.now();
  const answer = await fetch(subscription.endpoint, {
    method: "POST",
    headers: { "TTL": "60", "Content-Encoding": "aes128gcm" },
    body: await encrypt($("text").value, subscription),
  });
  say(`Answered ${answer.status} after ${Math.round(performance.now() - started)} ms. ${await answer.text()}`);
}

async function unsubscribe() {
  const worker = await navigator.serviceWorker.ready;
  const subscription = await worker.pushManager.getSubscription();
  await subscription?.unsubscribe();
  $("more").hidden = true;
  $("send").disabled = true;
  say("Not subscribed.");
}

const attempt = (action) => () => action().catch((error) => say(`${error.name}: ${error.message}`));
$("subscribe").addEventListener("click", attempt(subscribe));
$("send").addEventListener("click", attempt(send));
$("unsubscribe").addEventListener("click", attempt(unsubscribe));
if (!("PushManager" in window)) {
  say("This browser has no push messages here. They need http://localhost or https, and no private window.");
} else {
  navigator.serviceWorker.addEventListener("message", (event) => {
    $("received").textContent = `Received: ${event.data}`;
  });
  navigator.serviceWorker.getRegistration()
    .then((worker) => worker?.pushManager.getSubscription())
    .then((subscription) => subscription && show(subscription));
}
