"""Asks a question over RabbitMQ and waits for the answer.

    AMQP_URL=amqp://user:password@host/ python ask_by_queue.py "What is an opossum?"
"""

import json
import os
import sys
import uuid

import pika

question = sys.argv[1]
parameters = pika.URLParameters(os.environ["AMQP_URL"])
user = parameters.credentials.username
channel = pika.BlockingConnection(parameters).channel()
channel.confirm_delivery()

# The answer comes here: a queue of this user's own, which goes with the connection.
reply_to = f"opossum.reply.{user}.{uuid.uuid4().hex}"
channel.queue_declare(reply_to, exclusive=True)

job = {"endpoint": "/v1/chat/completions", "body": {"model": "auto", "messages": [{"role": "user", "content": question}]}}
properties = pika.BasicProperties(
    content_type="application/json", type="opossum.job.v1", delivery_mode=2, user_id=user,
    message_id=uuid.uuid4().hex, correlation_id="1", reply_to=reply_to,
)
# Raises where the broker does not confirm the job, or has no such queue.
channel.basic_publish("", "opossum.jobs.normal", json.dumps(job), properties, mandatory=True)

for method, reply, body in channel.consume(reply_to, inactivity_timeout=900):
    if method is None:
        sys.exit("no answer within 15 minutes")
    channel.basic_ack(method.delivery_tag)
    answer = json.loads(body)
    if reply.headers["x-opossum-status"] != 200:
        sys.exit(answer["error"]["message"])
    print(answer["choices"][0]["message"]["content"])
    break
