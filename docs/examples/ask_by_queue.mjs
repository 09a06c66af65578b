// Asks a question over RabbitMQ and waits for the answer.
//
//     AMQP_URL=amqp://user:password@host/ node ask_by_queue.mjs "What is an opossum?"

import { randomUUID } from "node:crypto";
import amqp from "amqplib";

const url = new URL(process.env.AMQP_URL);
const user = decodeURIComponent(url.username);
const connection = await amqp.connect(url.href);
const channel = await connection.createConfirmChannel();

// The answer comes here: a queue of this user's own, which goes with the connection.
const replyTo = `opossum.reply.${user}.${randomUUID()}`;
await channel.assertQueue(replyTo, { exclusive: true });
const answered = new Promise((resolve) => channel.consume(replyTo, resolve, { noAck: true }));

const body = { model: "auto", messages: [{ role: "user", content: process.argv[2] }] };
const job = JSON.stringify({ endpoint: "/v1/chat/completions", body });
channel.on("return", () => { throw new Error("the broker has no queue for jobs"); });
channel.sendToQueue("opossum.jobs.normal", Buffer.from(job), {
  contentType: "application/json", type: "opossum.job.v1", persistent: true, mandatory: true, userId: user,
  messageId: randomUUID(), correlationId: "1", replyTo,
});
await channel.waitForConfirms();

const reply = await answered;
const answer = JSON.parse(reply.content);
await connection.close();
if (reply.properties.headers["x-opossum-status"] !== 200) throw new Error(answer.error.message);
console.log(answer.choices[0].message.content);
