"""The official OpenAI client, unchanged, with the embedded model alone: answers that it can parse."""

import tempfile
import unittest
from pathlib import Path
from typing import Literal, Optional

import openai
from pydantic import BaseModel, Field

from harness import Service, default_model, with_template

TOOL_TEMPLATE = """{%- if tools %}{{- '<|im_start|>system\\nYou can call these functions:\\n' }}
{%- for tool in tools %}{{- (tool | tojson) + '\\n' }}{%- endfor %}
{{- 'To call one, answer with\\n<tool_call>\\n{"name": NAME, "arguments": OBJECT}\\n</tool_call><|im_end|>\\n' }}{%- endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
{%- else %}{{- '<|im_start|>' + message.role + '\\n' + (message.content or '') }}
{%- for call in message.tool_calls or [] %}{{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- (call.function.arguments | tojson) + '}\\n</tool_call>' }}{%- endfor %}{{- '<|im_end|>\\n' }}{%- endif %}
{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""


class Author(BaseModel):
    name: str = Field(max_length=30)
    born: Optional[int] = Field(ge=1000, le=2020)


class Book(BaseModel):
    """A book, with what pydantic writes for references, unions, limits and enumerations."""

    title: str = Field(max_length=40)
    kind: Literal["novel", "poems", "essay"]
    pages: int = Field(ge=1, le=2000)
    price: float = Field(ge=0, le=99)
    authors: list[Author] = Field(max_length=2)
    in_print: bool


class Weather(BaseModel):
    city: str = Field(max_length=24)
    unit: Literal["celsius", "fahrenheit"]


def user(text):
    return [{"role": "user", "content": text}]


class EmbeddedClient(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.TemporaryDirectory(prefix="opossum-model-")
        cls.addClassCleanup(cls.dir.cleanup)
        model = Path(cls.dir.name) / "tools.gguf"
        with_template(default_model(), TOOL_TEMPLATE, model)
        cls.service = Service(model=model)
        cls.addClassCleanup(cls.service.stop)
        cls.client = openai.OpenAI(base_url=f"{cls.service.url}/v1", api_key="any", timeout=120)
        cls.addClassCleanup(cls.client.close)

    def test_an_answer_is_parsed_into_a_model(self):
        for seed in range(3):
            answer = self.client.chat.completions.parse(
                model="auto", messages=user("Describe a book."), response_format=Book,
                temperature=1, seed=seed, max_tokens=600,
            )
            choice = answer.choices[0]
            self.assertEqual(choice.finish_reason, "stop")
            self.assertIsInstance(choice.message.parsed, Book)

    def test_a_stream_is_parsed_into_a_model(self):
        with self.client.chat.completions.stream(
            model="auto", messages=user("Describe a book."), response_format=Book,
            temperature=1, seed=7, max_tokens=600,
        ) as stream:
            parts = sum(event.type == "content.delta" for event in stream)
            answer = stream.get_final_completion()
        self.assertGreater(parts, 10)
        self.assertIsInstance(answer.choices[0].message.parsed, Book)

    def test_a_strict_tool_call_is_parsed_into_a_model(self):
        answer = self.client.chat.completions.parse(
            model="auto", messages=user("What is the weather in Paris?"), max_tokens=300,
            tools=[openai.pydantic_function_tool(Weather, name="weather")], tool_choice="required",
        )
        choice = answer.choices[0]
        self.assertEqual(choice.finish_reason, "tool_calls")
        for call in choice.message.tool_calls:
            self.assertEqual(call.function.name, "weather")
            self.assertIsInstance(call.function.parsed_arguments, Weather)

    def test_a_tool_call_is_streamed(self):
        with self.client.chat.completions.stream(
            model="auto", messages=user("What is the weather in Paris?"), max_tokens=300, parallel_tool_calls=False,
            tools=[openai.pydantic_function_tool(Weather, name="weather")],
            tool_choice={"type": "function", "function": {"name": "weather"}},
        ) as stream:
            parts = sum(event.type == "tool_calls.function.arguments.delta" for event in stream)
            answer = stream.get_final_completion()
        self.assertGreater(parts, 1)
        (call,) = answer.choices[0].message.tool_calls
        self.assertIsInstance(call.function.parsed_arguments, Weather)

    def test_a_keyword_that_cannot_be_kept_is_named(self):
        schema = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
        wanted = {"type": "json_schema", "json_schema": {"name": "set", "schema": schema}}
        with self.assertRaises(openai.BadRequestError) as caught:
            self.client.chat.completions.create(model="auto", messages=user("x"), response_format=wanted)
        self.assertEqual((caught.exception.param, caught.exception.code), ("response_format", "unsupported_parameter"))
        self.assertIn("uniqueItems", caught.exception.message)


if __name__ == "__main__":
    unittest.main()
