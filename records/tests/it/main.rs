//! What goes into a batch comes out of it, and strange bytes never panic.

mod edit;

use gristmill_records::{Header, Headers, PushError, RawBatchBuilder};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Owned {
    step: i64,
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

fn cell() -> impl Strategy<Value = Option<Vec<u8>>> {
    option::of(vec(any::<u8>(), 0..20))
}

fn record() -> impl Strategy<Value = Owned> {
    let header = (vec(any::<u8>(), 0..6), cell());
    (1..1000i64, -1..i64::MAX, cell(), cell(), vec(header, 0..4))
        .prop_map(|(step, timestamp, key, value, headers)| Owned { step, timestamp, key, value, headers })
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(records in vec(record(), 0..50)) {
        let mut builder = RawBatchBuilder::new("orders", 3);
        let mut offset = 0;
        for r in &records {
            offset += r.step;
            let headers = r.headers.iter().map(|(n, v)| Header { name: n, value: v.as_deref() });
            builder.push(offset, r.timestamp, r.key.as_deref(), r.value.as_deref(), headers).unwrap();
        }
        let batch = builder.build();
        prop_assert_eq!(batch.len(), records.len());
        let mut offset = 0;
        for (got, r) in batch.iter().zip(&records) {
            offset += r.step;
            prop_assert_eq!(got.offset(), offset);
            prop_assert_eq!(got.timestamp(), (r.timestamp != -1).then_some(r.timestamp));
            prop_assert_eq!(got.key(), r.key.as_deref());
            prop_assert_eq!(got.value(), r.value.as_deref());
            prop_assert!(got.headers().is_valid());
            let headers: Vec<_> = got.headers().map(|h| (h.name.to_vec(), h.value.map(<[u8]>::to_vec))).collect();
            prop_assert_eq!(&headers, &r.headers);
        }
    }

    #[test]
    fn any_bytes_read_as_headers_without_a_panic(bytes in vec(any::<u8>(), 0..64)) {
        let headers = Headers::from_encoded(&bytes);
        let count = headers.count();
        prop_assert!(count <= bytes.len() / 8);
        prop_assert!(!headers.is_valid() || bytes.is_empty() || count > 0);
    }
}

#[test]
fn an_offset_that_does_not_increase_is_refused_and_changes_nothing() {
    let mut builder = RawBatchBuilder::new("orders", 0);
    builder.push(7, -1, None, Some(b"a"), []).unwrap();
    let refused = builder.push(7, -1, None, Some(b"b"), []).unwrap_err();
    assert_eq!(refused, PushError::OffsetNotIncreasing { last: 7, offset: 7 });
    assert_eq!(builder.build().iter().map(|r| r.value().unwrap().to_vec()).collect::<Vec<_>>(), [b"a"]);
}

#[test]
fn the_last_of_several_headers_of_one_name_is_found() {
    let mut builder = RawBatchBuilder::new("orders", 0);
    let headers = [Header::new("a", b"1"), Header { name: b"b", value: None }, Header::new("a", b"2")];
    builder.push(0, -1, None, None, headers).unwrap();
    let batch = builder.build();
    let headers = batch.get(0).unwrap().headers();
    assert_eq!(headers.last_named("a").unwrap().value, Some(&b"2"[..]));
    assert_eq!(headers.last_named("b").unwrap().value, None);
    assert!(headers.last_named("c").is_none());
}

#[test]
fn debug_output_shows_no_record_bytes() {
    let mut builder = RawBatchBuilder::new("orders", 0);
    builder.push(0, -1, Some(b"secret-key"), Some(b"secret-value"), [Header::new("h", b"secret")]).unwrap();
    let text = format!("{:?}", builder.build());
    assert!(!text.contains("secret") && !text.contains("115, 101"), "{text}");
}
