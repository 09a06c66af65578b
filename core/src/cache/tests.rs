#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;
use crate::ids::ServiceName;
use crate::request::{
    Content, GenerateRequest, Image, ImageSource, Message, Part, Prompt, ResponseFormat, Role, Tool,
    ToolChoice,
};

const TARGET: CacheTarget<'static> =
    CacheTarget { endpoint: "chat", model: "auto", revision: "1", restrict: None };

fn request(text: &str) -> GenerateRequest {
    GenerateRequest::chat(vec![Message::text(Role::User, text)])
}

fn key_of(tenant: &str, target: CacheTarget<'_>, request: &GenerateRequest) -> CacheKey {
    CacheKey::of(tenant, target, request).unwrap()
}

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap()
}

fn image(base64: &str) -> Content {
    let source = ImageSource::Inline { mime: "image/png".into(), base64: base64.into() };
    Content::Parts(vec![Part::Image(Image { source, detail: None })])
}

#[test]
fn everything_an_answer_depends_on_changes_the_key() {
    type Change = fn(&mut GenerateRequest);
    let changes: &[Change] = &[
        |_| {},
        |r| r.prompt = Prompt::Chat(vec![Message::text(Role::User, "hello")]),
        |r| r.prompt = Prompt::Chat(vec![Message::text(Role::System, "hi")]),
        |r| r.prompt = Prompt::Text { prompt: "hi".into(), suffix: None, echo: false },
        |r| r.prompt = Prompt::Text { prompt: "hi".into(), suffix: None, echo: true },
        |r| r.prompt = Prompt::Text { prompt: "hi".into(), suffix: Some(String::new()), echo: false },
        |r| {
            r.prompt =
                Prompt::Chat(vec![Message { content: image("AAAA"), ..Message::text(Role::User, "") }]);
        },
        |r| {
            r.prompt =
                Prompt::Chat(vec![Message { content: image("AAAB"), ..Message::text(Role::User, "") }]);
        },
        |r| {
            r.prompt =
                Prompt::Chat(vec![Message { name: Some("x".into()), ..Message::text(Role::User, "hi") }]);
        },
        |r| r.params.temperature = Some(0.0),
        |r| r.params.temperature = Some(0.1),
        |r| r.params.top_p = Some(0.0),
        |r| r.params.top_k = Some(1),
        |r| r.params.max_tokens = Some(1),
        |r| r.params.stop = vec!["a".into()],
        |r| r.params.stop = vec!["a".into(), "b".into()],
        |r| r.params.stop = vec!["a\",\"b".into()],
        |r| r.params.seed = Some(1),
        |r| r.params.n = 2,
        |r| r.params.presence_penalty = Some(1.0),
        |r| r.params.frequency_penalty = Some(1.0),
        |r| r.params.logprobs = Some(0),
        |r| r.params.logit_bias = Some(raw("{\"1\":2}")),
        |r| r.params.reasoning_effort = Some("low".into()),
        |r| r.params.response_format = ResponseFormat::JsonObject,
        |r| {
            r.params.response_format =
                ResponseFormat::JsonSchema { name: "s".into(), schema: raw("{}"), strict: None };
        },
        |r| {
            let parameters = Some(raw("{\"type\":\"object\"}"));
            r.tools = vec![Tool { name: "f".into(), description: None, parameters, strict: None }];
        },
        |r| r.tools = vec![Tool { name: "f".into(), description: None, parameters: None, strict: None }],
        |r| r.tool_choice = ToolChoice::Required,
        |r| r.parallel_tool_calls = false,
    ];
    let mut keys: Vec<CacheKey> = changes
        .iter()
        .map(|change| {
            let mut request = request("hi");
            change(&mut request);
            key_of("t", TARGET, &request)
        })
        .collect();
    let services = [ServiceName::from("gemini"), ServiceName::from("ollama")];
    for target in [
        CacheTarget { endpoint: "completion", ..TARGET },
        CacheTarget { model: "gemini/pro", ..TARGET },
        CacheTarget { revision: "2", ..TARGET },
        CacheTarget { restrict: Some(&services), ..TARGET },
        CacheTarget { restrict: Some(&services[..1]), ..TARGET },
        CacheTarget { restrict: Some(&[]), ..TARGET },
    ] {
        keys.push(key_of("t", target, &request("hi")));
    }
    keys.push(key_of("t2", TARGET, &request("hi")));
    let count = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), count);
}

#[test]
fn what_an_answer_does_not_depend_on_leaves_the_key() {
    let mut other = request("hi");
    other.stream = true;
    other.user = Some("u".into());
    assert_eq!(key_of("t", TARGET, &request("hi")), key_of("t", TARGET, &other));
    let (a, b) = (ServiceName::from("a"), ServiceName::from("b"));
    let one = [a.clone(), b.clone()];
    let two = [b, a.clone(), a];
    let key = |services| key_of("t", CacheTarget { restrict: Some(services), ..TARGET }, &other);
    assert_eq!(key(&one), key(&two), "a restriction is a set");
}

#[test]
fn a_key_is_the_same_in_every_build() {
    // Stored keys must survive an upgrade that does not raise the schema version.
    let text = r#"{"schema":1,"tenant":"t","target":{"endpoint":"chat","model":"auto","revision":"1","restrict":null},"request":{"prompt":{"Chat":[{"role":"user","content":{"Text":"hi"},"name":null,"tool_calls":[],"tool_call_id":null}]},"params":{"temperature":null,"top_p":null,"top_k":null,"max_tokens":null,"stop":[],"seed":null,"n":1,"presence_penalty":null,"frequency_penalty":null,"logprobs":null,"logit_bias":null,"reasoning_effort":null,"response_format":"Text"},"tools":[],"tool_choice":"Auto","parallel_tool_calls":true}}"#;
    let expected = <sha2::Sha256 as sha2::Digest>::digest(text);
    assert_eq!(key_of("t", TARGET, &request("hi")).0[..], expected[..]);
}

fn key(n: u8) -> CacheKey {
    CacheKey([n; 32])
}

fn cache(max_bytes: usize) -> ExactCache<u64> {
    ExactCache::new(CacheConfig { max_bytes, ..CacheConfig::default() })
}

const ME: OwnerId = OwnerId(1);

#[test]
fn an_answer_is_found_until_it_is_too_old() {
    let now = Instant::now();
    let mut cache = cache(1 << 20);
    assert_eq!(cache.begin(key(1), ME, now), Turn::Lead);
    assert!(cache.complete(key(1), ME, Some((7, 100)), now).stored);
    let last = now + Duration::from_secs(3599);
    assert_eq!(cache.begin(key(1), ME, last), Turn::Hit(7));
    assert_eq!(cache.begin(key(1), ME, now + Duration::from_secs(3600)), Turn::Lead);
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.expirations, stats.keys, stats.bytes), (1, 2, 1, 0, 0));
}

#[test]
fn the_least_recently_used_makes_room() {
    let now = Instant::now();
    let mut cache = cache(3 * 1192);
    for n in 0..3 {
        assert!(cache.insert(key(n), n.into(), 1000, now));
    }
    assert_eq!(cache.begin(key(0), ME, now), Turn::Hit(0));
    cache.insert(key(3), 3, 1000, now);
    assert_eq!(cache.begin(key(1), ME, now), Turn::Lead);
    assert_eq!(cache.begin(key(0), ME, now), Turn::Hit(0));
    assert_eq!(cache.stats().evictions, 1);
    assert!(!cache.insert(key(9), 9, 4000, now), "larger than the whole budget");
    assert_eq!(cache.stats().too_large, 1);
}

#[test]
fn of_five_hundred_at_once_one_leads_and_all_are_answered() {
    let now = Instant::now();
    let mut cache = cache(1 << 20);
    let leads = (0..500).filter(|n| cache.begin(key(1), OwnerId(*n), now) == Turn::Lead).count();
    assert_eq!(leads, 1);
    let completed = cache.complete(key(1), OwnerId(0), Some((7, 1)), now);
    assert_eq!(completed.followers, (1..500).map(OwnerId).collect::<VecDeque<_>>());
    assert_eq!(cache.begin(key(1), ME, now), Turn::Hit(7));
}

#[test]
fn an_abandoned_flight_goes_to_the_next_who_is_still_there() {
    let now = Instant::now();
    let mut cache = cache(1 << 20);
    for n in 0..3 {
        cache.begin(key(1), OwnerId(n), now);
    }
    assert_eq!(cache.abandon(&key(1), OwnerId(2), now), None, "a follower has nothing to give up");
    assert_eq!(cache.abandon(&key(1), OwnerId(0), now), Some(OwnerId(1)));
    // The next one is gone too.
    assert_eq!(cache.abandon(&key(1), OwnerId(1), now), Some(OwnerId(2)));
    assert_eq!(cache.abandon(&key(1), OwnerId(2), now), None);
    assert_eq!(cache.begin(key(1), ME, now), Turn::Lead);
}

#[test]
fn a_leader_that_takes_too_long_is_replaced_and_ends_nothing() {
    let now = Instant::now();
    let mut cache = cache(1 << 20);
    cache.begin(key(1), OwnerId(0), now);
    cache.begin(key(1), OwnerId(1), now);
    let later = now + Duration::from_secs(300);
    assert_eq!(cache.begin(key(1), OwnerId(2), later), Turn::Lead);
    assert_eq!(cache.complete(key(1), OwnerId(0), Some((7, 1)), later), Completed::default());
    let completed = cache.complete(key(1), OwnerId(2), Some((8, 1)), later);
    assert_eq!(completed.followers, [OwnerId(1)]);
}

#[test]
fn what_was_flushed_does_not_come_back_by_a_late_leader() {
    let now = Instant::now();
    let mut cache = cache(1 << 20);
    cache.insert(key(2), 2, 1, now);
    cache.begin(key(1), ME, now);
    cache.flush();
    assert_eq!(cache.stats().bytes, 0);
    assert!(!cache.complete(key(1), ME, Some((7, 1)), now).stored);
    assert_eq!(cache.begin(key(1), ME, now), Turn::Lead);
}

/// A cache by the book: everything in one list, oldest use first.
#[derive(Default)]
struct Model {
    entries: Vec<(u8, u64, usize, u64)>,
}

proptest! {
    #[test]
    fn it_behaves_like_a_list_in_the_order_of_use(
        steps in proptest::collection::vec((0u8..12, 0usize..2500, any::<bool>(), 0u64..600), 1..300),
    ) {
        const MAX: usize = 6000;
        let start = Instant::now();
        let (mut cache, mut model, mut now) = (cache(MAX), Model::default(), 0u64);
        for (i, (k, bytes, put, wait)) in steps.into_iter().enumerate() {
            now += wait;
            let (at, i) = (start + Duration::from_secs(now), i as u64);
            if put {
                cache.insert(key(k), i, bytes, at);
                model.entries.retain(|entry| entry.0 != k);
                while model.entries.iter().map(|entry| entry.2).sum::<usize>() + bytes + 192 > MAX {
                    model.entries.remove(0);
                }
                model.entries.push((k, i, bytes + 192, now + 3600));
            } else {
                let found = model.entries.iter().position(|entry| entry.0 == k);
                let entry = found.map(|place| model.entries.remove(place)).filter(|entry| entry.3 > now);
                model.entries.extend(entry);
                let turn = cache.begin(key(k), ME, at);
                match entry {
                    Some(entry) => prop_assert_eq!(turn, Turn::Hit(entry.1)),
                    None => prop_assert!(!matches!(turn, Turn::Hit(_))),
                }
            }
            let stats = cache.stats();
            prop_assert!(stats.bytes <= MAX);
            prop_assert_eq!(stats.bytes, model.entries.iter().map(|entry| entry.2).sum::<usize>());
            prop_assert_eq!(stats.keys, model.entries.len());
        }
    }

    #[test]
    fn nobody_who_joined_is_forgotten(
        steps in proptest::collection::vec((0u8..3, 0u8..3), 1..200),
    ) {
        let now = Instant::now();
        let mut cache: ExactCache<u64> = cache(1 << 20);
        // Key by key: who leads, and who waits.
        let mut flights: HashMap<u8, (OwnerId, VecDeque<OwnerId>)> = HashMap::new();
        for (i, (k, what)) in steps.into_iter().enumerate() {
            let owner = OwnerId(i as u64);
            match (what, flights.remove(&k)) {
                (0, None) => {
                    prop_assert_eq!(cache.begin(key(k), owner, now), Turn::Lead);
                    flights.insert(k, (owner, VecDeque::new()));
                }
                (0, Some((leader, mut waiting))) => {
                    prop_assert_eq!(cache.begin(key(k), owner, now), Turn::Join);
                    waiting.push_back(owner);
                    flights.insert(k, (leader, waiting));
                }
                (1, Some((leader, waiting))) => {
                    prop_assert_eq!(cache.complete(key(k), leader, None, now).followers, waiting);
                }
                (_, Some((leader, mut waiting))) => {
                    let next = waiting.pop_front();
                    prop_assert_eq!(cache.abandon(&key(k), leader, now), next);
                    flights.extend(next.map(|next| (k, (next, waiting))));
                }
                (_, None) => prop_assert_eq!(cache.abandon(&key(k), owner, now), None),
            }
        }
    }
}
