//! What `docs/scaling.md` says can be done as it says: its objects follow the schemas of Kubernetes and KEDA, and
//! every setting, probe, queue and metric in them is one of the service's.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use opossum::settings::{ServerSettings, table};
use opossum_core::jobs::Lane;
use opossum_testkit::{Service, Upstream, eventually};
use serde_json::Value;

const BIN: &str = env!("CARGO_BIN_EXE_opossum");
const GUIDE: &str = include_str!("../docs/scaling.md");
const METRICS: &str = include_str!("../src/telemetry/names.rs");

/// The objects of the guide, held against their schemas.
fn objects() -> Vec<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let run = std::process::Command::new("node")
        .arg(root.join("tests/kubernetes/read.mjs"))
        .arg(root.join("docs/scaling.md"))
        .output();
    assert!(run.is_ok(), "{run:?}; scripts/test-setup.sh installs what it needs");
    let (said, printed) = run.map(|run| (run.stderr, run.stdout)).unwrap_or_default();
    assert_eq!(String::from_utf8_lossy(&said), "", "every object follows its schema");
    serde_json::from_slice(&printed).unwrap_or_default()
}

/// The only object of a kind.
fn the<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let all: Vec<_> = objects.iter().filter(|object| object["kind"] == kind).collect();
    assert_eq!(all.len(), 1, "{kind}");
    all[0]
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[tokio::test]
async fn its_objects_name_what_the_service_has() {
    let objects = objects();
    let pod = &the(&objects, "Deployment")["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let mut drain = ServerSettings::default().drain_delay;
    for variable in list(&container["env"]) {
        let name = variable["name"].as_str().unwrap_or_default();
        let known = |name: &str| table::KEYS.iter().any(|key| key.env == Some(name));
        assert!(known(name) || name.strip_suffix("_FILE").is_some_and(known), "{name}");
        if name == "DRAIN_TIMEOUT" {
            let seconds = variable["value"].as_str().and_then(|span| span.strip_suffix('s')?.parse().ok());
            drain += Duration::from_secs(seconds.unwrap_or_default());
        }
    }
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap_or_default();
    assert!(Duration::from_secs(grace) > drain, "a replica is killed after {grace} s, at work for {drain:?}");
    let port = u64::from(ServerSettings::default().port);
    assert_eq!(container["ports"][0]["containerPort"], port);

    let up = Upstream::openai().start();
    let service = Service::of(BIN).named("only", &up).env("REDIS_URL", "redis://127.0.0.1:1").start().await;
    for probe in ["livenessProbe", "readinessProbe"] {
        let path = container[probe]["httpGet"]["path"].as_str().unwrap_or_default();
        let answers =
            eventually(Duration::from_secs(60), async || service.client().get(path).await.status == 200);
        assert!(answers.await, "{probe} {path}");
    }
    // Once it has an effect, the guide has to say which.
    assert!(
        service.logs().contains("redis is set, but this version does not act on it"),
        "{}",
        service.logs()
    );

    let scaled = &the(&objects, "ScaledObject")["spec"];
    let queues: BTreeSet<_> =
        list(&scaled["triggers"]).filter_map(|trigger| trigger["metadata"]["queueName"].as_str()).collect();
    assert_eq!(queues, Lane::ALL.map(Lane::queue).into());
    let authentication = &the(&objects, "TriggerAuthentication")["metadata"]["name"];
    for trigger in list(&scaled["triggers"]).filter(|trigger| trigger["type"] == "rabbitmq") {
        assert_eq!(&trigger["authenticationRef"]["name"], authentication);
    }
    let deployment = &the(&objects, "Deployment")["metadata"]["name"];
    let behind = &the(&objects, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"];
    assert_eq!((behind, &scaled["scaleTargetRef"]["name"]), (deployment, deployment));
}

#[test]
fn its_metrics_are_the_services() {
    let word = |c: char| c.is_ascii_lowercase() || c == '_';
    let starts = GUIDE.match_indices("opossum_").map(|(at, _)| &GUIDE[at..]);
    let names: BTreeSet<_> = starts.map(|text| text.split(|c| !word(c)).next().unwrap_or_default()).collect();
    assert!(names.len() > 3, "{names:?}");
    for name in names {
        let name = name.trim_end_matches("_bucket");
        assert!(METRICS.contains(&format!("\"{name}\"")), "{name}");
    }
}
