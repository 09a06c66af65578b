"""The official OpenAI client, unchanged, against the service."""

import unittest

import openai

from harness import EMBEDDING_MODEL, MODEL, TEXT, Service, Upstream, vector_of


def user(text):
    return [{"role": "user", "content": text}]


class OpenAiClient(unittest.TestCase):
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

    def test_chat(self):
        answer = self.client.chat.completions.create(model="auto", messages=user("hello"))
        self.assertEqual(answer.choices[0].message.content, TEXT)
        self.assertEqual(answer.choices[0].finish_reason, "stop")
        self.assertEqual(answer.usage.completion_tokens, 11)
        self.assertEqual(answer.usage.total_tokens, 16)
        self.assertEqual(answer.object, "chat.completion")

    def test_headers_say_who_answered(self):
        raw = self.client.chat.completions.with_raw_response.create(model="auto", messages=user("hello"))
        self.assertEqual(raw.headers["x-opossum-backend"], "only")
        self.assertEqual(raw.headers["x-opossum-attempts"], "1")
        self.assertTrue(raw.headers["x-request-id"])
        self.assertEqual(raw.parse().choices[0].message.content, TEXT)

    def test_a_pinned_model(self):
        answer = self.client.chat.completions.create(model=f"only/{MODEL}", messages=user("hello"))
        self.assertEqual(answer.choices[0].message.content, TEXT)

    def test_a_stream_with_usage(self):
        events = list(
            self.client.chat.completions.create(
                model="auto", messages=user("hello"), stream=True, stream_options={"include_usage": True}
            )
        )
        text = "".join(c.delta.content or "" for e in events for c in e.choices)
        self.assertEqual(text.strip(), TEXT)
        self.assertEqual(events[0].choices[0].delta.role, "assistant")
        self.assertEqual([c.finish_reason for e in events for c in e.choices if c.finish_reason], ["stop"])
        self.assertEqual(events[-1].choices, [])
        self.assertEqual(events[-1].usage.completion_tokens, 11)

    def test_a_stream_without_usage_has_none(self):
        events = list(self.client.chat.completions.create(model="auto", messages=user("hello"), stream=True))
        self.assertTrue(all(e.usage is None for e in events))
        self.assertEqual(events[-1].choices[0].finish_reason, "stop")

    def test_a_stream_cut_upstream_raises(self):
        stream = self.client.chat.completions.create(model="auto", messages=user("cut"), stream=True)
        with self.assertRaises(openai.APIError) as caught:
            list(stream)
        self.assertEqual(caught.exception.code, "upstream_truncated")

    def test_a_tool_call(self):
        tool = {
            "type": "function",
            "function": {
                "name": "weather",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
            },
        }
        answer = self.client.chat.completions.create(model="auto", messages=user("weather?"), tools=[tool])
        call = answer.choices[0].message.tool_calls[0]
        self.assertEqual(answer.choices[0].finish_reason, "tool_calls")
        self.assertIsNone(answer.choices[0].message.content)
        self.assertEqual((call.function.name, call.function.arguments), ("weather", '{"city":"Paris"}'))
        sent = self.upstream.requests[-1]
        self.assertEqual(sent["tools"][0]["function"]["name"], "weather")

    def test_wrong_tools_are_named(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            self.client.chat.completions.create(
                model="auto", messages=user("x"),
                tools=[{"type": "function", "function": {"name": "not a name"}}],
            )
        self.assertTrue(caught.exception.param.startswith("tools[0]"), caught.exception.param)

    def test_completions(self):
        answer = self.client.completions.create(model="auto", prompt="Once upon a time")
        self.assertEqual(answer.choices[0].text, TEXT)

    def test_embeddings_as_the_client_asks_by_default(self):
        # Left to itself the client asks for base64 and decodes it.
        answer = self.client.embeddings.create(model=f"only/{EMBEDDING_MODEL}", input=["hello", "opossum"])
        self.assertEqual([e.embedding for e in answer.data], [vector_of("hello", 4), vector_of("opossum", 4)])
        self.assertEqual([e.index for e in answer.data], [0, 1])
        self.assertEqual((answer.model, answer.usage.prompt_tokens), (EMBEDDING_MODEL, 5))

    def test_embeddings_as_numbers_and_shorter(self):
        answer = self.client.embeddings.create(
            model="auto", input="hello", encoding_format="float", dimensions=2
        )
        self.assertEqual(answer.data[0].embedding, vector_of("hello", 2))

    def test_wrong_inputs_are_named(self):
        for arguments, param in [({"input": []}, "input"), ({"input": ["a", ""]}, "input[1]")]:
            with self.subTest(param), self.assertRaises(openai.BadRequestError) as caught:
                self.client.embeddings.create(model="auto", **arguments)
            with self.subTest(param):
                self.assertEqual(caught.exception.param, param)

    def test_models(self):
        ids = [model.id for model in self.client.models.list()]
        self.assertIn("auto", ids)
        self.assertIn(f"only/{MODEL}", ids)
        self.assertEqual(self.client.models.retrieve(f"only/{MODEL}").id, f"only/{MODEL}")

    def test_error_classes(self):
        cases = [
            (openai.NotFoundError, "model_not_found", {"model": "no-such-model", "messages": user("x")}),
            (openai.BadRequestError, "invalid_value", {"model": "auto", "messages": user("x"), "temperature": 7}),
            (openai.BadRequestError, "invalid_value", {"model": "auto", "messages": []}),
            (openai.BadRequestError, "unsupported_parameter",
             {"model": "auto", "messages": user("x"), "extra_body": {"api_base": "http://127.0.0.1:1"}}),
        ]
        for kind, code, arguments in cases:
            with self.subTest(code), self.assertRaises(kind) as caught:
                self.client.chat.completions.create(**arguments)
            with self.subTest(code):
                self.assertEqual(caught.exception.code, code)
                self.assertTrue(caught.exception.request_id)

    def test_the_client_does_not_multiply_our_retries(self):
        before = len(self.upstream.requests)
        with self.assertRaises(openai.InternalServerError) as caught:
            self.client.chat.completions.create(model="auto", messages=user("fail"))
        self.assertEqual(caught.exception.code, "upstream_error")
        self.assertEqual(caught.exception.response.headers["x-should-retry"], "false")
        calls = len(self.upstream.requests) - before
        self.assertLessEqual(calls, 4, "one attempt and three retries of ours, none of the client's")


class RateLimited(unittest.TestCase):
    """Cools its backend, so it has a service of its own."""

    def test_a_limit_upstream_is_a_rate_limit_error_with_a_time(self):
        upstream = Upstream()
        service = Service(upstream)
        self.addCleanup(upstream.server_close)
        self.addCleanup(upstream.shutdown)
        self.addCleanup(service.stop)
        with openai.OpenAI(base_url=f"{service.url}/v1", api_key="any", max_retries=0) as client:
            with self.assertRaises(openai.RateLimitError) as caught:
                client.chat.completions.create(model="auto", messages=user("limit"))
        self.assertEqual(caught.exception.code, "upstream_rate_limited")
        self.assertGreaterEqual(int(caught.exception.response.headers["retry-after"]), 1)


if __name__ == "__main__":
    unittest.main()
