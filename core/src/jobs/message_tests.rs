#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

const OWN: Own<'static> = Own { user: "opossum", fresh_id: "job_fresh" };
const PAYLOAD: &[u8] = br#"{"endpoint":"/v1/chat/completions","body":{"model":"auto","messages":[]}}"#;

fn good() -> Properties {
    Properties {
        message_id: Some("m1".into()),
        correlation_id: Some("c1".into()),
        reply_to: Some("opossum.reply.acme.r1".into()),
        user_id: Some("acme".into()),
        content_type: Some("application/json".into()),
        kind: Some(KIND.into()),
        ..Properties::default()
    }
}

fn refused(properties: Properties, payload: &[u8]) -> Rejection {
    Job::read(properties, payload, OWN).unwrap_err()
}

#[test]
fn a_whole_message_is_a_job() {
    let job = Job::read(
        Properties {
            deadline: Some(HeaderValue::Int(1_700_000_000_000)),
            attempt: Some(HeaderValue::Int(2)),
            traceparent: Some(HeaderValue::Text("00-ab-cd-01".into())),
            ..good()
        },
        PAYLOAD,
        OWN,
    )
    .unwrap();
    assert_eq!(job.key, JobKey::new("acme", "m1"));
    assert_eq!((job.endpoint, &*job.body), (Endpoint::Chat, r#"{"model":"auto","messages":[]}"#));
    assert_eq!(job.reply_to.as_deref(), Some("opossum.reply.acme.r1"));
    assert_eq!(job.correlation_id, "c1");
    assert_eq!(job.deadline, Deadline::at(1_700_000_000_000));
    assert_eq!(job.attempts.failed(), 2);
    assert_eq!(job.traceparent.as_deref(), Some("00-ab-cd-01"));
}

#[test]
fn what_a_message_may_leave_out_has_a_meaning() {
    let sparse = Properties { reply_to: Some("amq.gen-x".into()), ..Properties::default() };
    let job = Job::read(sparse, PAYLOAD, OWN).unwrap();
    assert_eq!(job.key, JobKey::new(ANONYMOUS, "job_fresh"));
    assert_eq!(job.correlation_id, "");
    assert_eq!((job.deadline.when(), job.attempts.failed()), (None, 0));
}

#[test]
fn a_job_that_nobody_waits_for_is_not_run() {
    let nobody = refused(Properties { reply_to: None, ..good() }, PAYLOAD);
    assert_eq!((nobody.refusal.clone(), nobody.reply_to), (Refusal::MissingReplyTo, None));
    assert_eq!(nobody.refusal.dead_letter(), "missing_reply_to");
    let empty = refused(Properties { reply_to: Some(String::new()), ..good() }, PAYLOAD);
    assert_eq!(empty.refusal, Refusal::MissingReplyTo);
}

#[test]
fn a_job_whose_reply_is_fetched_needs_no_queue() {
    let kept = Properties { reply_to: None, reply: Some(HeaderValue::Text("store".into())), ..good() };
    assert_eq!(Job::read(kept, PAYLOAD, OWN).unwrap().reply_to, None);
}

#[test]
fn a_reply_that_may_not_go_there_goes_nowhere() {
    for queue in ["opossum.jobs.normal", "opossum.reply.other.r1"] {
        let broken = refused(Properties { reply_to: Some(queue.into()), ..good() }, b"not even JSON");
        assert_eq!((broken.refusal, broken.reply_to), (Refusal::ReplyToForbidden, None), "{queue}");
    }
}

#[test]
fn only_the_services_own_user_speaks_for_others() {
    let named = |user: &str| {
        let properties = Properties {
            user_id: Some(user.into()),
            tenant: Some(HeaderValue::Text("acme".into())),
            reply_to: Some("amq.gen-x".into()),
            ..good()
        };
        Job::read(properties, PAYLOAD, OWN).unwrap().key.tenant
    };
    assert_eq!(&*named("opossum"), "acme");
    assert_eq!(&*named("mallory"), "mallory");
}

#[test]
fn what_is_wrong_is_told_with_its_status() {
    let with = |change: fn(&mut Properties)| {
        let mut properties = good();
        change(&mut properties);
        refused(properties, PAYLOAD)
    };
    let cases = [
        (415, with(|p| p.content_type = Some("text/plain".into()))),
        (415, with(|p| p.content_encoding = Some("gzip".into()))),
        (400, with(|p| p.kind = Some("opossum.job.v2".into()))),
        (400, with(|p| p.message_id = Some("a\nb".into()))),
        (400, with(|p| p.message_id = Some("x".repeat(201)))),
        (400, with(|p| p.deadline = Some(HeaderValue::Other))),
        (400, with(|p| p.attempt = Some(HeaderValue::Text("1".into())))),
        (413, refused(good(), &vec![b' '; MAX_BYTES + 1])),
        (400, refused(good(), b"")),
        (400, refused(good(), b"{")),
        (400, refused(good(), b"[]")),
        (400, refused(good(), br#"{"endpoint":"/v1/chat/completions"}"#)),
        (400, refused(good(), br#"{"endpoint":"/v1/models","body":{}}"#)),
        (400, refused(good(), br#"{"endpoint":"/v1/chat/completions","body":{},"api_base":"x"}"#)),
        (400, refused(good(), br#"{"endpoint":"/v1/chat/completions","body":{},"body":{}}"#)),
    ];
    for (status, rejection) in cases {
        assert_eq!(rejection.refusal.status(), status, "{rejection:?}");
        assert_eq!(rejection.refusal.dead_letter(), "invalid_message");
        assert_eq!(rejection.reply_to.as_deref(), Some("opossum.reply.acme.r1"));
        assert_eq!(rejection.correlation_id, "c1");
    }
}

#[test]
fn an_identity_that_cannot_be_one_is_not_repeated() {
    let rejection = refused(Properties { message_id: Some("x".repeat(250)), ..good() }, PAYLOAD);
    assert_eq!(rejection.message_id, None);
}

#[test]
fn a_cloud_event_is_a_job_too() {
    let event = br#"{"specversion":"1.0","id":"e1","source":"/app","type":"opossum.job.v1",
        "data":{"endpoint":"/v1/embeddings","body":{"input":"x"}}}"#;
    let properties = || Properties {
        message_id: None,
        content_type: Some("application/cloudevents+json; charset=utf-8".into()),
        kind: None,
        ..good()
    };
    let job = Job::read(properties(), event, OWN).unwrap();
    assert_eq!((&*job.key.id, job.endpoint, &*job.body), ("e1", Endpoint::Embeddings, r#"{"input":"x"}"#));
    for bad in [
        &br#"{"specversion":"0.3","id":"e1","type":"opossum.job.v1","data":{"endpoint":"/v1/embeddings","body":{}}}"#[..],
        br#"{"specversion":"1.0","id":"e1","type":"other","data":{"endpoint":"/v1/embeddings","body":{}}}"#,
        br#"{"specversion":"1.0","id":"","type":"opossum.job.v1","data":{"endpoint":"/v1/embeddings","body":{}}}"#,
        br#"{"specversion":"1.0","type":"opossum.job.v1","data":{"endpoint":"/v1/embeddings","body":{}}}"#,
    ] {
        assert_eq!(refused(properties(), bad).refusal.status(), 400);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_job_or_told_why_not(payload in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Err(rejection) = Job::read(good(), &payload, OWN) {
            prop_assert!(matches!(rejection.refusal.status(), 400 | 413 | 415));
        }
    }

    #[test]
    fn a_body_goes_on_as_it_came(text in "[a-zA-Z0-9 é\u{1F600}]{0,40}") {
        let body = serde_json::json!({ "prompt": text, "n": 1 }).to_string();
        let payload = format!(r#"{{ "body" : {body} , "endpoint":"/v1/completions" }}"#);
        let job = Job::read(good(), payload.as_bytes(), OWN).unwrap();
        prop_assert_eq!(&*job.body, body.as_str());
    }
}
