#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

type Owned = (Vec<u8>, Vec<u8>);

fn split(chunks: &[&[u8]]) -> Vec<Owned> {
    let mut events = Vec::new();
    let mut splitter = SseSplitter::default();
    for chunk in chunks {
        splitter
            .feed(chunk, |event| {
                events.push((event.name.to_vec(), event.data.to_vec()));
                Ok(())
            })
            .unwrap();
    }
    events
}

fn data(text: &str) -> Owned {
    (Vec::new(), text.as_bytes().to_vec())
}

#[test]
fn all_line_ends_are_line_ends() {
    for text in ["data: a\n\ndata: b\n\n", "data: a\r\n\r\ndata: b\r\n\r\n", "data: a\r\rdata: b\r\r"] {
        assert_eq!(split(&[text.as_bytes()]), [data("a"), data("b")], "{text:?}");
    }
}

#[test]
fn fields_follow_the_standard() {
    let text = "\u{feff}: comment\nevent: error\ndata:x\ndata:  y\ndata\nid: 1\ndatax: no\n\nevent: lost\n\ndata:\n\n";
    assert_eq!(split(&[text.as_bytes()]), [(b"error".to_vec(), b"x\n y\n".to_vec()), data("")]);
}

#[test]
fn an_event_inside_one_chunk_is_not_copied() {
    let chunk = b"data: hello\n\n";
    let mut splitter = SseSplitter::default();
    splitter
        .feed(chunk, |event| {
            assert!(chunk.as_ptr_range().contains(&event.data.as_ptr()));
            Ok(())
        })
        .unwrap();
    assert_eq!(splitter.data.capacity(), 0);
}

#[test]
fn an_unfinished_event_comes_out_only_when_asked_for() {
    let mut splitter = SseSplitter::default();
    splitter.feed(b"data: [DONE]", |_| Err(too_long())).unwrap();
    let mut last = Vec::new();
    splitter
        .finish(|event| {
            last = event.data.to_vec();
            Ok(())
        })
        .unwrap();
    assert_eq!(last, b"[DONE]");
}

#[test]
fn an_endless_line_is_refused() {
    let mut splitter = SseSplitter::default();
    let piece = vec![b'x'; 100_000];
    let mut fed = 0;
    while splitter.feed(&piece, |_| Ok(())).is_ok() {
        fed += piece.len();
        assert!(fed <= MAX_EVENT_BYTES);
    }
    assert!(fed > MAX_EVENT_BYTES - piece.len());
}

#[test]
fn endless_data_lines_are_refused() {
    let mut splitter = SseSplitter::default();
    let line = [b"data: ".as_slice(), &[b'x'; 1000], b"\n"].concat();
    let refused = (0..2000).any(|_| splitter.feed(&line, |_| Ok(())).is_err());
    assert!(refused);
}

#[test]
fn the_first_error_of_the_consumer_ends_it() {
    let mut seen = 0;
    let result = SseSplitter::default().feed(b"data: a\n\ndata: b\n\n", |_| {
        seen += 1;
        Err(too_long())
    });
    assert!(result.is_err());
    assert_eq!(seen, 1);
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_events(
        text in "(\u{feff})?((data|event|id|:|dat)?(: ?| )?[a-zä]{0,3}(\n|\r|\r\n)){0,12}",
        cuts in proptest::collection::vec(0usize..200, 0..20),
    ) {
        let bytes = text.as_bytes();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        let whole = split(&[bytes]);
        prop_assert_eq!(&split(&chunks), &whole);
        prop_assert_eq!(&split(&single), &whole);
    }
}
