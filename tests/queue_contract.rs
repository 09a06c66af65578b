//! What `docs/asyncapi.yaml` says of the queue is so: AsyncAPI's own parser has nothing against it, a broker that
//! the service has set up has those queues and exchanges and no others, and every message that comes and goes is
//! as it says. What it names and nobody ever sees is an error, too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opossum_testkit::requester::{PATIENCE, payload};
use opossum_testkit::{Broker, Requester, Script, Service, Tap, Upstream, ask, ask_stream, eventually};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

const BIN: &str = env!("CARGO_BIN_EXE_opossum");
const NORMAL: &str = "opossum.jobs.normal";
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// The document, and which of its names were seen.
struct Contract {
    document: Value,
    seen: Mutex<BTreeSet<(&'static str, String)>>,
}

/// A message's parts with names of their own, and where the document describes them.
const NAMED: [(&str, &str); 2] = [("headers", "headers"), ("properties", "x-properties")];

impl Contract {
    /// Reads it with the official parser, which follows all references.
    async fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let run = tokio::process::Command::new("node")
            .arg(root.join("tests/asyncapi/read.mjs"))
            .arg(root.join("docs/asyncapi.yaml"))
            .output()
            .await;
        assert!(run.is_ok(), "{run:?}; scripts/test-setup.sh installs what it needs");
        let (said, printed) = run.map(|run| (run.stderr, run.stdout)).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert_eq!(said, "", "the parser has nothing against it");
        let document = serde_json::from_slice(&printed).unwrap_or_default();
        Self { document, seen: Mutex::default() }
    }

    /// Holds a message against what is said of its kind.
    fn holds(&self, kind: &str, message: &Value) {
        let said = &self.document["components"]["messages"][kind];
        assert!(said.is_object(), "{kind} is described");
        for (part, place) in NAMED.into_iter().chain([("payload", "payload")]) {
            let follows = jsonschema::validate(&said[place], &message[part]);
            assert!(follows.is_ok(), "{part} of {kind}: {follows:?} in {message:#}");
        }
        for (part, place) in NAMED {
            let known = names(&said[place]);
            for name in message[part].as_object().into_iter().flat_map(|part| part.keys()) {
                // Brokers add more of these with every version.
                let of_the_broker = name.starts_with("x-first-death-") || name.starts_with("x-last-death-");
                assert!(known.contains(name) || of_the_broker, "{part} of {kind} have no {name}");
                self.seen.lock().insert((part, name.clone()));
            }
        }
    }

    /// Nothing is described that never comes.
    fn is_seen_in_full(&self) {
        let messages = self.document["components"]["messages"].as_object();
        let mut never = BTreeSet::new();
        for said in messages.into_iter().flat_map(|messages| messages.values()) {
            for (part, place) in NAMED {
                never.extend(names(&said[place]).into_iter().map(|name| (part, name)));
            }
        }
        never.retain(|name| !self.seen.lock().contains(name));
        assert_eq!(never, BTreeSet::new());
    }

    /// The example of a kind of message.
    fn example(&self, kind: &str) -> &Value {
        &self.document["components"]["messages"][kind]["examples"][0]
    }

    /// What the document says of the broker's objects of a sort.
    fn bound(&self, sort: &str) -> impl Iterator<Item = &Value> {
        let channels = self.document["channels"].as_object().into_iter();
        let all = channels.flat_map(|channels| channels.values());
        all.map(|channel| &channel["bindings"]["amqp"]).filter(move |amqp| amqp["is"] == sort)
    }
}

/// The names of an object's members, wherever a schema describes them.
fn names(schema: &Value) -> BTreeSet<String> {
    let own = schema["properties"].as_object().into_iter().flat_map(|own| own.keys().cloned());
    let parts = schema["allOf"].as_array().into_iter().flatten();
    own.chain(parts.flat_map(names)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_queue_is_as_its_document_says() {
    let contract = Contract::read().await;
    let broker = Broker::start("").await;
    let (first, last) = (Upstream::openai().start(), Upstream::openai().start());
    let service = Service::of(BIN)
        .named("first", &first)
        .named("last", &last)
        .set("policy.last.last_resort", true)
        .quick()
        .env("DEFAULT_MAX_RETRIES", 0)
        .env("CIRCUIT_BREAKER_FAILURE_THRESHOLD", 1000)
        .env("AMQP_URL", broker.url("opossum", 0))
        .start()
        .await;
    let well = eventually(PATIENCE, async || service.client().health(false).await["status"] == "ok");
    assert!(well.await, "{}", service.logs());
    queues_and_exchanges_are_those(&contract, &broker).await;
    let stage = Stage { contract, acme: Requester::new(&broker, "acme", 0).await, service, first, last };
    stage.the_examples_are_answered().await;
    stage.a_failed_job_waits_and_is_tried_again().await;
    stage.a_job_over_http_is_published_and_cancelled().await;
    stage.a_job_that_is_given_up_lies_among_the_dead().await;
    stage.a_reply_whose_queue_is_gone_is_parked().await;
    stage.an_answer_says_when_to_come_again().await;
    stage.contract.is_seen_in_full();
}

async fn queues_and_exchanges_are_those(contract: &Contract, broker: &Broker) {
    let list = async |what: &str, columns: &[&str]| -> Vec<Value> {
        let arguments = [&[what, "-p", "v0", "--quiet", "--formatter", "json"], columns].concat();
        let listed = serde_json::from_str(&broker.control(&arguments).await);
        assert!(listed.is_ok(), "{what}: {listed:?}");
        listed.unwrap_or_default()
    };
    let ours = |object: &Value| object["name"].as_str().is_some_and(is_shared);
    let (queues, exchanges, bindings) = tokio::join!(
        list("list_queues", &["name", "durable", "auto_delete", "arguments"]),
        list("list_exchanges", &["name", "type", "durable", "auto_delete"]),
        list("list_bindings", &["source_name", "destination_name"]),
    );
    let queues: BTreeMap<_, _> = queues.iter().filter(|queue| ours(queue)).map(with_arguments).collect();
    let said = contract.bound("queue").map(|amqp| {
        let (queue, arguments) = (&amqp["queue"], &amqp["x-arguments"]);
        let (durable, passing) = (&queue["durable"], &queue["autoDelete"]);
        let name = &queue["name"];
        named(&json!({ "name": name, "durable": durable, "auto_delete": passing, "arguments": arguments }))
    });
    assert_eq!(queues, said.collect());
    let exchanges: BTreeMap<_, _> = exchanges.iter().filter(|exchange| ours(exchange)).map(named).collect();
    let said = contract.bound("routingKey").map(|amqp| {
        let exchange = &amqp["exchange"];
        let (kind, durable) = (&exchange["type"], &exchange["durable"]);
        named(&json!({
            "name": exchange["name"], "type": kind, "durable": durable, "auto_delete": exchange["autoDelete"],
        }))
    });
    assert_eq!(exchanges, said.collect());
    let pair = |binding: &Value| (binding["source_name"].clone(), binding["destination_name"].clone());
    let of_ours = |binding: &&Value| {
        let to = binding["destination_name"].as_str().unwrap_or_default();
        binding["source_name"] != "" && is_shared(to)
    };
    let bindings: Vec<_> = bindings.iter().filter(of_ours).map(pair).collect();
    let bound = contract.bound("queue").filter(|amqp| amqp["x-bound-to"].is_string());
    let said: Vec<_> =
        bound.map(|amqp| (amqp["x-bound-to"].clone(), amqp["queue"]["name"].clone())).collect();
    assert_eq!(sorted(bindings), sorted(said));
}

/// Whether it is the service's, and not the queue in which one worker hears what is said to all.
fn is_shared(name: &str) -> bool {
    name.starts_with("opossum.") && !name.starts_with("opossum.control.")
}

fn named(object: &Value) -> (String, Value) {
    (object["name"].as_str().unwrap_or_default().to_owned(), object.clone())
}

/// A queue whose arguments the broker lists as names, types and values.
fn with_arguments(queue: &Value) -> (String, Value) {
    let listed = queue["arguments"].as_array().into_iter().flatten();
    let arguments: Map<_, _> = listed
        .map(|argument| (argument[0].as_str().unwrap_or_default().to_owned(), argument[2].clone()))
        .collect();
    let mut queue = queue.clone();
    queue["arguments"] = arguments.into();
    named(&queue)
}

fn sorted(mut pairs: Vec<(Value, Value)>) -> Vec<(Value, Value)> {
    pairs.sort_by_key(|pair| format!("{pair:?}"));
    pairs
}

/// Who plays.
struct Stage {
    contract: Contract,
    acme: Requester,
    service: Service,
    first: Upstream,
    last: Upstream,
}

impl Stage {
    /// Both upstreams answer so from now on.
    fn both(&self, script: &Script) {
        self.first.set_default(script.clone());
        self.last.set_default(script.clone());
    }

    async fn the_examples_are_answered(&self) {
        self.both(&Script::new().chunks(&["one ", "two"]).finish("stop"));
        for (kind, content_type) in [("job", "application/json"), ("event", "application/cloudevents+json")] {
            let example = self.contract.example(kind);
            let properties = self
                .acme
                .properties(kind)
                .with_content_type(content_type.into())
                .with_content_encoding("utf-8".into())
                .with_timestamp(now().as_secs())
                .with_expiration("60000".into());
            let tap = Tap::on(&self.acme, NORMAL).await;
            let properties = self.acme.with_headers(properties, &example["headers"]);
            self.acme.publish(NORMAL, properties, example["payload"].to_string().as_bytes()).await;
            let caught = tap.caught().await;
            self.contract.holds(kind, &caught.message);
            caught.give_back().await;
            let reply = self.acme.reply(kind, 1).await;
            assert_eq!(reply.status(), Some(200), "{reply:?}");
            self.contract.holds("reply", &reply.message);
        }
        // A stream, by the last resort.
        self.first.set_default(Script::status(500));
        self.acme.ask("stream", &ask_stream("x")).await;
        let reply = self.acme.reply("stream", 1).await;
        assert_eq!(reply.text("x-opossum-degraded").as_deref(), Some("true"));
        self.contract.holds("reply", &reply.message);
        let pieces = || -> Vec<_> {
            let heard = self.acme.heard_of("stream").into_iter();
            heard.filter(|piece| piece.message["properties"]["type"] == "opossum.chunk.v1").collect()
        };
        assert!(eventually(PATIENCE, async || pieces().len() > 1).await, "{:?}", self.acme.heard());
        pieces().iter().for_each(|piece| self.contract.holds("chunk", &piece.message));
    }

    async fn a_failed_job_waits_and_is_tried_again(&self) {
        self.both(&Script::status(500));
        let tap = Tap::on(&self.acme, "opossum.jobs.retry.5s").await;
        let headers = &self.contract.example("job")["headers"];
        let properties = self.acme.with_headers(self.acme.properties("again"), headers);
        self.acme.publish(NORMAL, properties, &payload(&ask("x"))).await;
        let caught = tap.caught().await;
        self.contract.holds("again", &caught.message);
        self.both(&Script::text("at last"));
        // As its time to live would have it, but at once.
        caught.reject().await;
        assert_eq!(self.acme.reply("again", 1).await.status(), Some(200));
    }

    async fn a_job_over_http_is_published_and_cancelled(&self) {
        let client = self.service.client().with("traceparent", TRACE).with("x-opossum-timeout-ms", "60000");
        let jobs = Tap::on(&self.acme, NORMAL).await;
        let control = Tap::behind(&self.acme, "opossum.control").await;
        let job = json!({ "endpoint": "/v1/chat/completions", "body": ask("x") });
        let accepted = client.post("/v1/jobs", &job).await;
        assert_eq!(accepted.status, 202, "{}", accepted.body_text());
        let caught = jobs.caught().await;
        self.contract.holds("job", &caught.message);
        let place = accepted.header("location").unwrap_or_default();
        assert_eq!(client.call("DELETE", place, None).await.status, 200);
        let cancelled = control.caught().await;
        self.contract.holds("cancel", &cancelled.message);
        let same = cancelled.message["payload"]["cancel"] == caught.message["properties"]["message_id"];
        assert!(same, "{:#} {:#}", cancelled.message, caught.message);
        caught.give_back().await;
    }

    async fn a_job_that_is_given_up_lies_among_the_dead(&self) {
        let jobs = Tap::on(&self.acme, NORMAL).await;
        let undelivered = Tap::on(&self.acme, "opossum.jobs.undelivered").await;
        let dead = Tap::on(&self.acme, "opossum.jobs.dead").await;
        self.acme.ask("given up", &ask("x")).await;
        jobs.caught().await.reject().await;
        let caught = undelivered.caught().await;
        self.contract.holds("undelivered", &caught.message);
        caught.give_back().await;
        self.contract.holds("dead", &dead.caught().await.message);
        let reply = self.acme.reply("given up", 1).await;
        assert_eq!(reply.status(), Some(500));
        self.contract.holds("reply", &reply.message);
    }

    async fn a_reply_whose_queue_is_gone_is_parked(&self) {
        let parked = Tap::on(&self.acme, "opossum.replies.parked").await;
        let properties = self.acme.properties("parked").with_reply_to("opossum.reply.acme.gone".into());
        self.acme.publish(NORMAL, properties, &payload(&ask("x"))).await;
        self.contract.holds("parked", &parked.caught().await.message);
    }

    async fn an_answer_says_when_to_come_again(&self) {
        self.both(&Script::status_with(429, &[("retry-after", "30")]));
        let soon = now() + Duration::from_secs(20);
        let deadline = json!({ "x-opossum-deadline": u64::try_from(soon.as_millis()).unwrap_or_default() });
        let properties = self.acme.with_headers(self.acme.properties("busy"), &deadline);
        self.acme.publish(NORMAL, properties, &payload(&ask("x"))).await;
        let reply = self.acme.reply("busy", 1).await;
        assert!(reply.text("retry-after").is_some(), "{reply:?}");
        self.contract.holds("reply", &reply.message);
        let example = self.contract.example("reply");
        self.contract.holds(
            "reply",
            &json!({
                "headers": example["headers"], "payload": example["payload"],
                "properties": reply.message["properties"],
            }),
        );
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
