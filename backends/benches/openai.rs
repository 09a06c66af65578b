//! What a call over the OpenAI dialect costs the thread that makes it, in CPU time.
//!
//! The upstream is a thread of this process that answers with bytes prepared beforehand, so that wall time
//! measures both; CPU time is the calling thread's own, from `/proc/thread-self/schedstat`.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use opossum_backends::http::{HttpClient, HttpConfig};
use opossum_backends::openai::{OpenAiBackend, OpenAiConfig};
use opossum_backends::{Backend, Call, ParamDefaults, Reply};
use opossum_core::request::{GenerateRequest, Message, Role};

const CHUNK: &str = r#"data: {"id":"chatcmpl-0123456789","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}]}"#;
const LAST: &str = r#"data: {"id":"chatcmpl-0123456789","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}"#;
const WHOLE: &str = r#"{"id":"chatcmpl-0123456789","object":"chat.completion","created":1700000000,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Paris is the capital of France."},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":7,"total_tokens":19}}"#;

/// Events of one stream.
const EVENTS: usize = 2000;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let whole = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{WHOLE}",
        WHOLE.len()
    );
    runtime.block_on(async {
        let calls = 20_000;
        let (cpu, wall) = measure(&serve(vec![whole.into_bytes()], None), false, calls).await;
        println!(
            "whole answer, warm connection: {:.1} us CPU, {:.1} us wall per call",
            per(cpu, calls),
            per(wall, calls)
        );
        let streams = 50;
        let events = streams * EVENTS;
        for (name, pieces, gap) in [
            ("a burst in one transfer chunk", one_chunk(), None),
            ("a burst, one transfer chunk each", vec![chunk_each().concat()], None),
            ("one segment each", chunk_each(), Some(Duration::from_micros(20))),
        ] {
            let (cpu, wall) = measure(&serve(pieces, gap), true, streams).await;
            println!(
                "stream, {name}: {:.2} us CPU, {:.2} us wall per event",
                per(cpu, events),
                per(wall, events)
            );
        }
    });
}

fn per(time: Duration, count: usize) -> f64 {
    time.as_secs_f64() * 1e6 / count as f64
}

async fn measure(addr: &SocketAddr, stream: bool, count: usize) -> (Duration, Duration) {
    let client = HttpClient::new(HttpConfig::default()).unwrap();
    let backend =
        OpenAiBackend::new(OpenAiConfig::new("openai", format!("http://{addr}/v1")), client).unwrap();
    let request = GenerateRequest::chat(vec![
        Message::text(Role::System, "You are a helpful assistant."),
        Message::text(Role::User, "What is the capital of France? Answer in one sentence."),
    ]);
    let call = Call {
        request: Arc::new(GenerateRequest { stream, ..request }),
        model: "m".into(),
        defaults: Arc::new(ParamDefaults::default()),
        request_id: "req-0123456789".into(),
        traceparent: None,
    };
    for _ in 0..count / 10 {
        once(&backend, &call).await;
    }
    let (cpu, wall) = (thread_cpu(), Instant::now());
    for _ in 0..count {
        once(&backend, &call).await;
    }
    (thread_cpu() - cpu, wall.elapsed())
}

async fn once(backend: &OpenAiBackend, call: &Call) {
    match backend.generate(call.clone()).await.unwrap() {
        Reply::Whole(answer) => assert_eq!(answer.choices.len(), 1),
        Reply::Stream(mut events) => {
            while let Some(batch) = events.next().await {
                std::hint::black_box(batch.unwrap());
            }
        }
    }
}

/// CPU time of this thread so far.
fn thread_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

fn transfer_chunk(body: &str) -> String {
    format!("{:x}\r\n{body}\r\n", body.len())
}

fn one_chunk() -> Vec<Vec<u8>> {
    let body = format!("{}{LAST}\n\ndata: [DONE]\n\n", format!("{CHUNK}\n\n").repeat(EVENTS));
    vec![format!("{HEAD}{}0\r\n\r\n", transfer_chunk(&body)).into_bytes()]
}

fn chunk_each() -> Vec<Vec<u8>> {
    let mut pieces = vec![HEAD.as_bytes().to_vec()];
    pieces.resize(EVENTS + 1, transfer_chunk(&format!("{CHUNK}\n\n")).into_bytes());
    let last = transfer_chunk(&format!("{LAST}\n\ndata: [DONE]\n\n"));
    pieces.push(format!("{last}0\r\n\r\n").into_bytes());
    pieces
}

/// Answers every request with these pieces, one write each and `gap` apart.
fn serve(pieces: Vec<Vec<u8>>, gap: Option<Duration>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, pieces) = (stream.unwrap(), pieces.clone());
            std::thread::spawn(move || answer(stream, &pieces, gap));
        }
    });
    addr
}

fn answer(mut stream: TcpStream, pieces: &[Vec<u8>], gap: Option<Duration>) {
    stream.set_nodelay(true).unwrap();
    let mut buffer = vec![0; 65536];
    // Each request comes in one segment, since it is small and written at once.
    while stream.read(&mut buffer).is_ok_and(|read| read > 0) {
        for piece in pieces {
            if stream.write_all(piece).is_err() {
                return;
            }
            if let Some(gap) = gap {
                std::thread::sleep(gap);
            }
        }
    }
}
