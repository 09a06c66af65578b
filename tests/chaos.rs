//! Hundreds of requests while backends fail at random: every caller gets its own answer, whole, and nothing
//! is left behind. `OPOSSUM_TEST_SEED` repeats a run.

use std::time::Duration;

use futures::StreamExt as _;
use opossum_testkit::{
    Answer, Dice, End, Script, Service, Step, Transcript, Upstream, ask, ask_stream, eventually,
};

const BIN: &str = env!("CARGO_BIN_EXE_opossum");
const REQUESTS: usize = 400;
const AT_ONCE: usize = 12;

/// Faults that strike before any content reached the caller, so that they must not be noticed.
fn unnoticed(dice: &mut Dice) -> Script {
    match dice.below(11) {
        0 => Script::status(500),
        1 => Script::status(503),
        2 => Script::status_with(429, &[("retry-after-ms", "50")]),
        3 => Script::reset(),
        4 => Script::html(),
        5 => Script::empty(),
        6 => Script::invalid_json(),
        7 => Script::cut_after(0),
        8 => Script::eof_without_finish(0),
        9 => Script::hang(),
        _ => Script::new().delay(Duration::from_millis(dice.below(50))).then(Step::Echo),
    }
}

fn mostly_good(dice: &mut Dice) -> Script {
    if dice.below(3) == 0 {
        unnoticed(dice)
    } else {
        Script::new().then(Step::SplitEvery(5)).then(Step::Echo)
    }
}

enum Outcome {
    Whole(String, Answer),
    Streamed(String, Transcript),
    Left,
}

async fn one(service: &Service, number: usize, roll: u64) -> Outcome {
    let question = format!("question {number} – what is {} times {}?", roll % 97, roll % 89);
    let client = service.client();
    match roll % 5 {
        0 | 1 => {
            let answer = client.chat(&ask(&question)).await;
            Outcome::Whole(question, answer)
        }
        2 | 3 => {
            let transcript = client.stream(&ask_stream(&question)).await.collect().await;
            Outcome::Streamed(question, transcript)
        }
        _ => {
            let mut conn = client.connect().await;
            let body = ask_stream(&question).to_string();
            let sent =
                conn.send(&client.request("POST", "/v1/chat/completions", Some(body.as_bytes()))).await;
            assert!(sent.is_ok());
            tokio::time::sleep(Duration::from_millis(roll % 40)).await;
            if roll.is_multiple_of(2) {
                assert!(conn.reset().is_ok());
            } else {
                conn.leave();
            }
            Outcome::Left
        }
    }
}

fn judge(outcome: &Outcome) {
    match outcome {
        Outcome::Whole(question, answer) => {
            assert_eq!((answer.status, &answer.text()), (200, question), "{}", answer.body_text());
        }
        Outcome::Streamed(question, stream) => {
            assert_eq!((stream.status, &stream.text()), (200, question), "{stream:?}");
            assert!(stream.done() && stream.end == End::Clean, "{stream:?}");
            assert_eq!(stream.finish_reason(), "stop");
        }
        Outcome::Left => {}
    }
}

#[tokio::test]
async fn whatever_fails_at_random_each_caller_gets_its_own_answer_and_nothing_leaks() {
    let mut dice = Dice::from_env();
    let gemini = Upstream::gemini().start();
    let ollama = Upstream::ollama().start();
    let good = Upstream::openai().script(Script::new().then(Step::SplitEvery(7)).then(Step::Echo)).start();
    gemini.set_cycle((0..50).map(|_| mostly_good(&mut dice)).collect());
    ollama.set_cycle((0..50).map(|_| unnoticed(&mut dice)).collect());
    let builder = Service::of(BIN).quick().gemini(&gemini).ollama(&ollama).named("good", &good);
    let builder = builder.set("policy.gemini.weight", 1000).set("policy.ollama.weight", 100);
    let service = builder.env("GEMINI_RESET_TIMEOUT", "0.1").env("OLLAMA_RESET_TIMEOUT", "0.1").start().await;
    service.settled(&["gemini", "ollama", "good"]).await;
    let fds = service.open_fds();

    let rolls: Vec<u64> = (0..REQUESTS).map(|_| dice.next_u64()).collect();
    let asked = rolls.iter().enumerate().map(|(number, roll)| one(&service, number, *roll));
    let outcomes: Vec<Outcome> = futures::stream::iter(asked).buffer_unordered(AT_ONCE).collect().await;
    outcomes.iter().for_each(judge);
    let metrics = service.client().metrics().await;
    let failovers = metrics.count("opossum_failovers_total", &[]);
    assert!(failovers >= 10.0, "hardly any fault was met: {failovers} failovers");

    let client = service.client();
    let quiet = eventually(Duration::from_secs(5), async || {
        let idle = good.in_flight() + gemini.in_flight() + ollama.in_flight() == 0;
        idle && client.metrics().await.sum("opossum_requests_in_flight", &[]) == Some(0.0)
    });
    assert!(quiet.await, "work goes on after all callers have their answers");
    let health = client.health(false).await;
    for (name, actor) in health["actors"].as_object().into_iter().flatten() {
        assert_eq!((&actor["alive"], &actor["restarts"]), (&true.into(), &0.into()), "{name}");
    }
    assert!(!service.logs().contains("panic"));
    // Pools keep a few connections to each upstream.
    assert!(service.open_fds() < fds + 60, "{fds} descriptors became {}", service.open_fds());
}
