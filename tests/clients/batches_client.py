"""The official OpenAI client's files and batches, unchanged, against the service and a real broker."""

import io
import json
import time
import unittest

import openai

from broker import Broker
from harness import TEXT, Service, Upstream


def line(custom_id, content, url="/v1/chat/completions"):
    body = {"model": "auto", "messages": [{"role": "user", "content": content}]}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body})


def upload(client, *lines):
    content = io.BytesIO("\n".join(lines).encode())
    return client.files.create(file=("requests.jsonl", content), purpose="batch")


class Files(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.upstream = Upstream()
        cls.service = Service(cls.upstream)
        cls.client = openai.OpenAI(base_url=f"{cls.service.url}/v1", api_key="any", timeout=20)

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        cls.service.stop()
        cls.upstream.shutdown()
        cls.upstream.server_close()

    def test_a_file_is_kept_read_and_deleted(self):
        expires = {"anchor": "created_at", "seconds": 3600}
        file = self.client.files.create(file=("a.jsonl", b"{}\n" * 9), purpose="batch", expires_after=expires)
        self.assertEqual((file.object, file.bytes, file.filename, file.purpose), ("file", 27, "a.jsonl", "batch"))
        self.assertEqual(file.expires_at - file.created_at, 3600)
        self.assertEqual(self.client.files.retrieve(file.id), file)
        self.assertEqual(self.client.files.content(file.id).text, "{}\n" * 9)
        self.assertTrue(self.client.files.delete(file.id).deleted)
        with self.assertRaises(openai.NotFoundError):
            self.client.files.retrieve(file.id)

    def test_files_are_listed_over_pages(self):
        made = {upload(self.client, str(n)).id for n in range(5)}
        listed = {file.id for file in self.client.files.list(limit=2, order="asc", purpose="batch")}
        self.assertLessEqual(made, listed)

    def test_another_purpose_is_an_error_that_names_it(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            self.client.files.create(file=("a", b"x"), purpose="assistants")
        self.assertEqual(caught.exception.param, "purpose")

    def test_without_a_queue_batches_are_unavailable(self):
        client = self.client.with_options(max_retries=0)
        with self.assertRaises(openai.InternalServerError) as caught:
            client.batches.create(input_file_id="x", endpoint="/v1/embeddings", completion_window="24h")
        self.assertEqual(caught.exception.code, "queue_unavailable")


class Batches(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.broker = Broker()
        cls.upstream = Upstream()
        cls.service = Service(cls.upstream, env={"AMQP_URL": cls.broker.url})
        cls.client = openai.OpenAI(base_url=f"{cls.service.url}/v1", api_key="any", timeout=20)

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        cls.service.stop()
        cls.broker.stop()
        cls.upstream.shutdown()
        cls.upstream.server_close()

    def order(self, *lines, **more):
        file = upload(self.client, *lines)
        return self.client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", **more
        )

    def over(self, batch, limit=60):
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            batch = self.client.batches.retrieve(batch.id)
            if batch.status in ("completed", "failed", "expired", "cancelled"):
                return batch
            time.sleep(0.1)
        self.fail(f"not over: {batch}")

    def test_a_batch_is_answered(self):
        batch = self.order(line("a", "hello"), line("b", "hello"), metadata={"night": "ly"})
        self.assertEqual((batch.object, batch.metadata), ("batch", {"night": "ly"}))
        batch = self.over(batch)
        self.assertEqual((batch.status, batch.request_counts.completed), ("completed", 2))
        self.assertEqual((batch.usage.output_tokens, batch.error_file_id), (22, None))
        told = [json.loads(text) for text in self.client.files.content(batch.output_file_id).text.splitlines()]
        self.assertEqual([answer["custom_id"] for answer in told], ["a", "b"])
        for answer in told:
            self.assertEqual(answer["response"]["status_code"], 200)
            self.assertEqual(answer["response"]["body"]["choices"][0]["message"]["content"], TEXT)
        self.assertIn(batch.id, [listed.id for listed in self.client.batches.list(limit=1)])

    def test_a_bad_line_is_named(self):
        batch = self.over(self.order(line("a", "hello"), "{", line("a", "hello")))
        self.assertEqual(batch.status, "failed")
        self.assertEqual([(e.line, e.code) for e in batch.errors.data],
                         [(2, "invalid_json_line"), (3, "duplicate_custom_id")])

    def test_a_batch_is_cancelled(self):
        batch = self.order(*(line(str(n), "hello") for n in range(500)))
        self.assertIn(self.client.batches.cancel(batch.id).status, ("cancelling", "cancelled"))
        self.assertEqual(self.over(batch).status, "cancelled")


if __name__ == "__main__":
    unittest.main()
