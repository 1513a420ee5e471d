"use strict";

// Sends one push message with npm's web-push. Standard input: { subscription, payload, options }, as sendNotification
// takes them. Standard output: { answer } or { error } with what a program that uses the library would see.

const webPush = require(process.env.WEB_PUSH);

const input = JSON.parse(require("fs").readFileSync(0, "utf8"));
webPush.sendNotification(input.subscription, input.payload, input.options).then(
  ({ statusCode, headers, body }) => console.log(JSON.stringify({ answer: { statusCode, headers, body } })),
  ({ name, message, statusCode, headers, body, endpoint }) =>
    console.log(JSON.stringify({ error: { name, message, statusCode, headers, body, endpoint } })),
);
