//! What both databases promise about files.

use std::time::Duration;

use bytes::Bytes;
use opossum_ledger::{
    Address, Deleted, FileRecord, Ledger, LedgerConfig, LedgerError, NewFile, ObjectKey, PIECE, Page,
};
use opossum_testkit::eventually;
use sqlx::Row as _;

use super::{config, now_ms, open, open_with};

pub(super) const DAY: Duration = Duration::from_secs(86_400);

pub(super) fn of(tenant: &str, id: &str) -> ObjectKey {
    ObjectKey::new(tenant, id)
}

pub(super) fn new(bytes: usize, keep: Duration) -> NewFile {
    NewFile {
        purpose: "batch".to_owned(),
        filename: "lines.jsonl".to_owned(),
        bytes: u64::try_from(bytes).unwrap(),
        keep,
    }
}

pub(super) async fn write(ledger: &Ledger, key: &ObjectKey, content: &[u8], file: NewFile) -> FileRecord {
    ledger.begin_file(key.clone()).await.unwrap();
    for (number, piece) in (0..).zip(content.chunks(PIECE)) {
        ledger.add_piece(key.clone(), number, Bytes::copy_from_slice(piece)).await.unwrap();
    }
    ledger.finish_file(key.clone(), file).await.unwrap().unwrap()
}

async fn read(ledger: &Ledger, key: &ObjectKey) -> Vec<u8> {
    let mut content = Vec::new();
    let mut number = 0;
    while let Some(piece) = ledger.piece(key.clone(), number).await.unwrap() {
        content.extend_from_slice(&piece);
        number += 1;
    }
    content
}

pub(crate) async fn a_file_is_seen_once_it_is_whole_and_only_by_its_owner(url: String) {
    let ledger = open(Address::parse(&url).unwrap()).await;
    let key = of("a", "file-1");
    let content: Vec<u8> = (0..PIECE * 2 + 17).map(|n| (n % 251) as u8).collect();
    ledger.begin_file(key.clone()).await.unwrap();
    ledger.add_piece(key.clone(), 0, Bytes::from_static(b"of an attempt before")).await.unwrap();
    ledger.add_piece(key.clone(), 7, Bytes::from_static(b"of an attempt before")).await.unwrap();
    assert_eq!(ledger.file(key.clone()).await, Ok(None));
    assert_eq!(ledger.piece(key.clone(), 0).await, Ok(None));
    let record = write(&ledger, &key, &content, new(content.len(), DAY)).await;
    assert_eq!(ledger.file(key.clone()).await, Ok(Some(record.clone())));
    assert_eq!((&*record.id, record.bytes), ("file-1", content.len() as u64));
    assert_eq!(record.expires_ms - record.created_ms, 86_400_000);
    assert!((record.created_ms - now_ms()).abs() < 60_000);
    assert_eq!(read(&ledger, &key).await, content);
    assert_eq!(ledger.piece(key.clone(), 7).await, Ok(None), "begun anew");
    assert_eq!(ledger.finish_file(key.clone(), new(1, DAY)).await, Ok(None), "it is finished already");

    let foreign = of("b", "file-1");
    assert_eq!(ledger.file(foreign.clone()).await, Ok(None));
    assert_eq!(ledger.piece(foreign.clone(), 0).await, Ok(None));
    assert_eq!(ledger.delete_file(foreign).await, Ok(Deleted::Missing));
    let all = Page { after: None, limit: 10, newest_first: true };
    assert_eq!(ledger.files("b".into(), None, all).await, Ok(Vec::new()));
    assert_eq!(ledger.begin_file(of("", "x")).await, Err(LedgerError::Refused));

    assert_eq!(ledger.delete_file(key.clone()).await, Ok(Deleted::Gone));
    assert_eq!(ledger.delete_file(key.clone()).await, Ok(Deleted::Missing));
    assert_eq!((ledger.file(key.clone()).await, read(&ledger, &key).await), (Ok(None), Vec::new()));
}

pub(crate) async fn files_are_listed_in_order_page_by_page(url: String) {
    let ledger = open(Address::parse(&url).unwrap()).await;
    let mut made = Vec::new();
    for n in 0..7 {
        made.push(write(&ledger, &of("a", &format!("file-{}", (n * 5) % 7)), b"x", new(1, DAY)).await);
    }
    write(&ledger, &of("a", "expired"), b"x", new(1, Duration::ZERO)).await;
    let output = NewFile { purpose: "batch_output".to_owned(), ..new(1, DAY) };
    write(&ledger, &of("a", "output"), b"x", output).await;
    made.sort_by_key(|file| (file.created_ms, file.id.clone()));
    for newest_first in [false, true] {
        let mut listed: Vec<FileRecord> = Vec::new();
        loop {
            let after = listed.last().map(|file| file.id.clone());
            let page = Page { after, limit: 3, newest_first };
            let more = ledger.files("a".into(), Some("batch".to_owned()), page).await.unwrap();
            if more.is_empty() {
                break;
            }
            listed.extend(more);
        }
        let mut wanted = made.clone();
        if newest_first {
            wanted.reverse();
        }
        assert_eq!(listed, wanted);
    }
    let all = Page { after: None, limit: 100, newest_first: true };
    assert_eq!(ledger.files("a".into(), None, all).await.unwrap().len(), 8, "of every purpose");
}

pub(crate) async fn files_that_are_gone_leave_nothing_behind(url: String) {
    let address = Address::parse(&url).unwrap();
    let ledger = open(address.clone()).await;
    let content = vec![7; PIECE * 3];
    for (id, keep) in [("kept", DAY), ("deleted", DAY), ("expired", Duration::ZERO)] {
        write(&ledger, &of("a", id), &content, new(content.len(), keep)).await;
    }
    ledger.delete_file(of("a", "deleted")).await.unwrap();
    ledger.begin_file(of("a", "broken off")).await.unwrap();
    ledger.add_piece(of("a", "broken off"), 0, Bytes::from_static(b"x")).await.unwrap();
    ledger.close(Duration::from_secs(60)).await;

    let quick = LedgerConfig {
        keep_unfinished_files: Duration::ZERO,
        prune_interval: Duration::from_millis(50),
        ..config(address)
    };
    let ledger = open_with(quick).await;
    sqlx::any::install_default_drivers();
    let pool = sqlx::AnyPool::connect(&url).await.unwrap();
    let left = async || {
        let mut left = [0_i64; 2];
        for (count, table) in left.iter_mut().zip(["opossum_files", "opossum_file_pieces"]) {
            let sql = sqlx::AssertSqlSafe(format!("SELECT count(*) AS rest FROM {table}"));
            *count = sqlx::query(sql).fetch_one(&pool).await.unwrap().get(0);
        }
        left
    };
    assert!(eventually(Duration::from_secs(60), async || left().await == [1, 3]).await, "{:?}", left().await);
    assert_eq!(read(&ledger, &of("a", "kept")).await, content);
    pool.close().await;
}
