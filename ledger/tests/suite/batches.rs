//! What both databases promise about batches.

use std::collections::BTreeSet;
use std::time::Duration;

use opossum_core::batches::{Batch, Mark, Order, Status};
use opossum_core::jobs::{Endpoint, JobKey, JobState};
use opossum_ledger::{
    Address, BatchRecord, Deleted, Held, Ledger, LedgerConfig, LineMark, LineNote, LineOutput, ObjectKey,
    Page,
};
use opossum_testkit::eventually;

use super::files::{DAY, new, of, write};
use super::{HASH, LEASE, config, now_ms, open, open_with, reply};

fn batch(input: &str) -> Batch {
    let metadata = [("who".to_owned(), "ü\0\"".to_owned())].into();
    let order = Order {
        endpoint: Endpoint::Chat,
        input_file_id: input.to_owned(),
        metadata: Some(metadata),
        keep_output_seconds: 3600,
    };
    Batch::new(order, now_ms())
}

async fn created(ledger: &Ledger, key: ObjectKey, input: &str) -> BatchRecord {
    let batch = batch(input);
    ledger.create_batch(key.clone(), batch.clone()).await.unwrap();
    BatchRecord { key, batch }
}

async fn take(ledger: &Ledger, worker: &str, lease: Duration) -> Option<BatchRecord> {
    ledger.take_batch(worker.to_owned(), lease).await.unwrap()
}

async fn save(ledger: &Ledger, record: &BatchRecord, worker: &str, lease: Duration) -> Held {
    ledger.save_batch(record.clone(), worker.to_owned(), lease).await.unwrap()
}

pub(crate) async fn a_batch_is_one_workers_until_its_lease_ends(url: String) {
    let address = Address::parse(&url).unwrap();
    // Two ledgers share the database as two processes would.
    let ledgers = [open(address.clone()).await, open(address).await];
    let mut wanted = BTreeSet::new();
    for n in 0..20 {
        created(&ledgers[0], of("a", &format!("batch_{n}")), "file").await;
        wanted.insert(format!("batch_{n}"));
    }
    let mut tasks = Vec::new();
    for worker in 0..6 {
        let ledger = ledgers[worker % 2].clone();
        tasks.push(tokio::spawn(async move {
            let mut taken = Vec::new();
            // Of those who want the same one, all but one may come away with nothing.
            for _ in 0..20 {
                let batch = take(&ledger, &format!("w{worker}"), LEASE).await;
                taken.extend(batch.map(|record| record.key.id.to_string()));
            }
            taken
        }));
    }
    let mut taken = Vec::new();
    for task in tasks {
        taken.extend(task.await.unwrap());
    }
    while let Some(record) = take(&ledgers[0], "w", LEASE).await {
        taken.push(record.key.id.to_string());
    }
    assert_eq!(taken.len(), 20, "none is taken twice");
    assert_eq!(taken.into_iter().collect::<BTreeSet<_>>(), wanted);

    let ledger = &ledgers[0];
    ledger.release_batches("w".to_owned()).await.unwrap();
    for worker in 0..6 {
        ledger.release_batches(format!("w{worker}")).await.unwrap();
    }
    let mut record = take(ledger, "a", Duration::ZERO).await.unwrap();
    record.batch.accept(3, now_ms());
    assert_eq!(save(ledger, &record, "b", LEASE).await, Held::Lost);
    assert_eq!(save(ledger, &record, "a", LEASE).await, Held::Yes { cancelled: None });
    assert_eq!(ledger.batch(record.key.clone()).await, Ok(Some(record.clone())));
    record.batch.counts.completed = 3;
    record.batch.finalize(now_ms());
    record.batch.end(opossum_core::batches::batch::Results::default(), now_ms());
    assert_eq!(save(ledger, &record, "a", Duration::ZERO).await, Held::Yes { cancelled: None });
    assert_eq!(save(ledger, &record, "a", LEASE).await, Held::Lost, "what is over is nobody's");
    let mut others = BTreeSet::new();
    while let Some(other) = take(ledger, "z", LEASE).await {
        others.insert(other.key.id.to_string());
    }
    assert_eq!((others.len(), others.contains(&*record.key.id)), (19, false));
}

pub(crate) async fn a_batch_is_called_off_by_its_owner_whoever_works_on_it(url: String) {
    let ledger = open(Address::parse(&url).unwrap()).await;
    let record = created(&ledger, of("a", "batch_1"), "file").await;
    let mut held = take(&ledger, "w", LEASE).await.unwrap();
    assert_eq!(held, record);
    assert_eq!(ledger.cancel_batch(of("b", "batch_1")).await, Ok(None));
    let cancelled = ledger.cancel_batch(of("a", "batch_1")).await.unwrap().unwrap();
    assert_eq!(cancelled.batch.status, Status::Cancelling);
    assert_eq!(ledger.cancel_batch(of("a", "batch_1")).await.unwrap().unwrap(), cancelled, "once is enough");
    held.batch.accept(1, now_ms());
    let Held::Yes { cancelled: Some(when) } = save(&ledger, &held, "w", LEASE).await else {
        panic!("the worker is not told");
    };
    assert_eq!(ledger.batch(of("a", "batch_1")).await.unwrap().unwrap().batch.status, Status::Cancelling);
    held.batch.cancel(when);
    held.batch.end(opossum_core::batches::batch::Results::default(), now_ms());
    save(&ledger, &held, "w", LEASE).await;
    let over = ledger.cancel_batch(of("a", "batch_1")).await.unwrap().unwrap();
    assert_eq!(over.batch, held.batch, "what is over stays as it is");
}

pub(crate) async fn the_first_outcome_of_a_line_is_its_outcome_for_good(url: String) {
    let address = Address::parse(&url).unwrap();
    let ledger = open(address.clone()).await;
    let mut record = created(&ledger, of("a", "batch_1"), "file").await;
    let again = Mark { attempt: 2, faults: 1, not_before: 77 };
    let note = |line, mark, outcome: Option<(bool, &'static [u8])>| LineNote {
        line,
        mark,
        outcome: outcome.map(|(good, text)| (good, text.into())),
    };
    let first = vec![note(7, again, None), note(3, again, Some((true, b"three")))];
    ledger.note_lines(record.key.clone(), first).await.unwrap();
    let over = Mark { attempt: 3, faults: 1, not_before: 0 };
    let later = vec![
        note(3, over, Some((false, b"later"))),
        note(7, over, Some((false, b"seven"))),
        note(9, again, None),
    ];
    ledger.note_lines(record.key.clone(), later).await.unwrap();
    let marks = ledger.line_marks(record.key.clone()).await.unwrap();
    let wanted = [
        LineMark { line: 3, mark: again, outcome: Some(true) },
        LineMark { line: 7, mark: over, outcome: Some(false) },
        LineMark { line: 9, mark: again, outcome: None },
    ];
    assert_eq!(marks, wanted);
    let output = |line, is_good, text: &'static [u8]| LineOutput { line, is_good, output: text.into() };
    let all = ledger.line_outputs(record.key.clone(), 0, 10).await.unwrap();
    assert_eq!(all, [output(3, true, b"three"), output(7, false, b"seven")]);
    assert_eq!(ledger.line_outputs(record.key.clone(), 4, 1).await.unwrap(), all[1..]);
    assert_eq!(ledger.line_marks(of("b", "batch_1")).await, Ok(Vec::new()));

    // What a worker left behind that ended at the end.
    take(&ledger, "w", LEASE).await.unwrap();
    record.batch.refuse(Vec::new(), now_ms());
    save(&ledger, &record, "w", LEASE).await;
    ledger.close(Duration::from_secs(60)).await;
    let quick = LedgerConfig {
        keep_batches: Duration::ZERO,
        prune_interval: Duration::from_millis(50),
        ..config(address)
    };
    let ledger = open_with(quick).await;
    let gone = eventually(Duration::from_secs(60), async || {
        ledger.line_marks(record.key.clone()).await == Ok(Vec::new())
            && ledger.batch(record.key.clone()).await == Ok(None)
    });
    assert!(gone.await);
}

pub(crate) async fn batches_are_listed_in_order_page_by_page(url: String) {
    let ledger = open(Address::parse(&url).unwrap()).await;
    for n in 0..5 {
        created(&ledger, of("a", &format!("batch_{n}")), "file").await;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    created(&ledger, of("b", "batch_x"), "file").await;
    let mut listed: Vec<String> = Vec::new();
    loop {
        let after = listed.last().map(|id| id.as_str().into());
        let page = Page { after, limit: 2, newest_first: true };
        let more = ledger.batches("a".into(), page).await.unwrap();
        if more.is_empty() {
            break;
        }
        listed.extend(more.iter().map(|record| record.key.id.to_string()));
    }
    assert_eq!(listed, ["batch_4", "batch_3", "batch_2", "batch_1", "batch_0"]);
}

pub(crate) async fn a_file_that_a_batch_reads_is_not_taken_away(url: String) {
    let quick =
        LedgerConfig { prune_interval: Duration::from_millis(50), ..config(Address::parse(&url).unwrap()) };
    let ledger = open_with(quick).await;
    for id in ["file", "short"] {
        let keep = if id == "file" { DAY } else { Duration::from_millis(500) };
        write(&ledger, &of("a", id), b"x", new(1, keep)).await;
        created(&ledger, of("a", &format!("batch_{id}")), id).await;
    }
    assert_eq!(ledger.delete_file(of("a", "file")).await, Ok(Deleted::InUse));
    assert!(
        eventually(LEASE, async || ledger.file(of("a", "short")).await == Ok(None)).await,
        "it has expired"
    );
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(ledger.piece(of("a", "short"), 0).await.unwrap().is_some(), "but its batch still has it");
    for _ in 0..2 {
        let mut record = take(&ledger, "w", LEASE).await.unwrap();
        record.batch.refuse(Vec::new(), now_ms());
        save(&ledger, &record, "w", LEASE).await;
    }
    assert_eq!(ledger.delete_file(of("a", "file")).await, Ok(Deleted::Gone));
    assert!(eventually(LEASE, async || ledger.piece(of("a", "short"), 0).await == Ok(None)).await);
}

pub(crate) async fn the_jobs_of_lines_are_found_by_their_ids(url: String) {
    let ledger = open(Address::parse(&url).unwrap()).await;
    let ids: Vec<String> = (0..11).map(|n| format!("batch_1:{n}:1")).collect();
    let key = |n: usize| JobKey::new("a", ids[n].as_str());
    ledger.enqueue(key(2), HASH).await.unwrap();
    ledger.finish(key(5), HASH, reply(200, b"five")).await.unwrap();
    ledger.finish(JobKey::new("b", ids[6].as_str()), HASH, reply(200, b"foreign")).await.unwrap();
    let mut known = ledger.known_jobs("a".into(), ids.clone()).await.unwrap();
    known.sort_by(|a, b| a.id.cmp(&b.id));
    let states: Vec<_> = known.iter().map(|job| (job.id.as_str(), job.state)).collect();
    assert_eq!(states, [(ids[2].as_str(), JobState::Queued), (ids[5].as_str(), JobState::Succeeded)]);
    assert_eq!(known[1].reply, Some(reply(200, b"five")));
    assert_eq!(ledger.known_jobs("a".into(), Vec::new()).await, Ok(Vec::new()));
}
