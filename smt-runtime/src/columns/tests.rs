//! What goes into a call comes out of it the same; nothing that a guest may answer is more than refused.

use std::sync::Arc;

use arrow_array::builder::{
    BinaryBuilder, BooleanBuilder, FixedSizeBinaryBuilder, Int64Builder, StringBuilder,
};
use arrow_array::{
    Array, ArrayRef, Decimal128Array, Int64Array, ListArray, MapArray, RecordBatch, StringArray, StructArray,
    TimestampMicrosecondArray,
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{DataType, Field, Fields, Schema, TimeUnit};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::binding::{Answer, Offered};
use super::encode::Words;
use super::fields::{flatten, unflatten};
use super::{decode, encode};
use crate::contract::{Binding, columns};

fn fields(deep: bool) -> Fields {
    let mut fields = vec![
        Field::new("flag", DataType::Boolean, true),
        Field::new("id", DataType::Int64, false),
        Field::new("text", DataType::Utf8, true),
        Field::new("bytes", DataType::Binary, true),
        Field::new("sixteen", DataType::FixedSizeBinary(3), true),
        Field::new("total", DataType::Decimal128(38, 2), true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
    ];
    if deep {
        let members = self::fields(false);
        let entries = Fields::from(vec![
            Field::new("key", DataType::Utf8, false),
            Field::new("value", DataType::Int64, true),
        ]);
        fields.extend([
            Field::new("inner", DataType::Struct(members.clone()), true),
            Field::new_list("list", Field::new("item", DataType::Struct(members), true), true),
            Field::new(
                "map",
                DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries), false)), false),
                true,
            ),
        ]);
    }
    fields.into()
}

fn array(rng: &mut SmallRng, field: &Field, rows: usize) -> ArrayRef {
    let dense = !field.is_nullable() || rng.random_bool(0.3);
    let null = |rng: &mut SmallRng| !dense && rng.random_bool(0.3);
    let nulls =
        |rng: &mut SmallRng| (!dense).then(|| NullBuffer::from_iter((0..rows).map(|_| rng.random_bool(0.7))));
    let text = |rng: &mut SmallRng| "ä€x".chars().cycle().take(rng.random_range(0..9)).collect::<String>();
    match field.data_type() {
        DataType::Boolean => {
            let mut b = BooleanBuilder::new();
            (0..rows).for_each(|_| b.append_option((!null(rng)).then(|| rng.random())));
            Arc::new(b.finish())
        }
        DataType::Int64 => {
            let mut b = Int64Builder::new();
            (0..rows).for_each(|_| b.append_option((!null(rng)).then(|| rng.random())));
            Arc::new(b.finish())
        }
        DataType::Utf8 => {
            let mut b = StringBuilder::new();
            (0..rows).for_each(|_| b.append_option((!null(rng)).then(|| text(rng))));
            Arc::new(b.finish())
        }
        DataType::Binary => {
            let mut b = BinaryBuilder::new();
            (0..rows).for_each(|_| b.append_option((!null(rng)).then(|| text(rng))));
            Arc::new(b.finish())
        }
        DataType::FixedSizeBinary(n) => {
            let mut b = FixedSizeBinaryBuilder::new(*n);
            (0..rows).for_each(|_| match null(rng) {
                true => b.append_null(),
                false => b.append_value(rng.random::<[u8; 3]>()).unwrap(),
            });
            Arc::new(b.finish())
        }
        DataType::Decimal128(p, s) => {
            let values: Vec<Option<i128>> =
                (0..rows).map(|_| (!null(rng)).then(|| i128::from(rng.random::<i64>()))).collect();
            Arc::new(Decimal128Array::from(values).with_precision_and_scale(*p, *s).unwrap())
        }
        DataType::Timestamp(..) => {
            let values: Vec<Option<i64>> = (0..rows).map(|_| (!null(rng)).then(|| rng.random())).collect();
            Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC"))
        }
        DataType::Struct(fields) => {
            let members = fields.iter().map(|f| array(rng, f, rows)).collect();
            Arc::new(StructArray::new(fields.clone(), members, nulls(rng)))
        }
        DataType::List(item) => {
            let lengths: Vec<usize> = (0..rows).map(|_| rng.random_range(0..4)).collect();
            let values = array(rng, item, lengths.iter().sum());
            Arc::new(ListArray::new(item.clone(), OffsetBuffer::from_lengths(lengths), values, nulls(rng)))
        }
        DataType::Map(entries, _) => {
            let lengths: Vec<usize> = (0..rows).map(|_| rng.random_range(0..4)).collect();
            let DataType::Struct(fields) = entries.data_type() else { unreachable!() };
            let members = fields.iter().map(|f| array(rng, f, lengths.iter().sum())).collect();
            let values = StructArray::new(fields.clone(), members, None);
            Arc::new(MapArray::new(
                entries.clone(),
                OffsetBuffer::from_lengths(lengths),
                values,
                nulls(rng),
                false,
            ))
        }
        other => unreachable!("{other}"),
    }
}

fn batch(rng: &mut SmallRng, rows: usize) -> RecordBatch {
    let fields = fields(true);
    let arrays = fields.iter().map(|f| array(rng, f, rows)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

#[test]
fn fields_come_back_as_they_went() {
    let fields = fields(true);
    let (flat, places) = flatten(&fields).unwrap();
    assert_eq!(unflatten(&flat).unwrap(), fields.iter().cloned().collect::<Vec<_>>());
    let place = places.iter().find(|p| p.name == "inner.text").unwrap();
    assert_eq!((place.path.as_slice(), place.inside), (&[7, 2][..], false));
    assert!(places.iter().find(|p| p.name == "list.item").unwrap().inside);
}

#[test]
fn columns_come_back_as_they_went_whatever_part_of_them_goes() {
    for seed in 0..300 {
        let rng = &mut SmallRng::seed_from_u64(seed);
        let rows = rng.random_range(1..70);
        let batch = batch(rng, rows);
        // A slice, so that bitmaps and offsets do not begin at 0.
        let skip = rng.random_range(0..rows);
        let batch = batch.slice(skip, rows - skip);
        let start = rng.random_range(0..batch.num_rows());
        let range = start..rng.random_range(start..=batch.num_rows());
        let columns: Vec<_> = batch.columns().iter().map(|a| (a.clone(), a.nulls().cloned())).collect();
        let mut words = Words::default();
        words.fill(&columns, &range);
        let fields: Vec<_> = batch.schema().fields().iter().cloned().collect();
        let back =
            decode::decode(&fields, range.len(), &words.layout, words.buffers.clone(), u64::MAX).unwrap();
        for (sent, back) in batch.slice(range.start, range.len()).columns().iter().zip(&back) {
            assert_eq!(sent, back, "seed {seed}");
        }
        assert!(encode::bytes_of(columns.iter().map(|(array, _)| array)) > 0);
    }
}

#[test]
fn what_is_changed_on_the_way_is_refused_or_valid_and_never_a_panic() {
    let mut refused = 0;
    for seed in 0..3000 {
        let rng = &mut SmallRng::seed_from_u64(seed);
        let rows = rng.random_range(1..20);
        let batch = batch(rng, rows);
        let columns: Vec<_> = batch.columns().iter().map(|a| (a.clone(), a.nulls().cloned())).collect();
        let mut words = Words::default();
        words.fill(&columns, &(0..rows));
        for _ in 0..rng.random_range(1..4) {
            match rng.random_range(0..4) {
                0 if !words.layout.is_empty() => {
                    let i = rng.random_range(0..words.layout.len());
                    words.layout[i] = match rng.random_range(0..3) {
                        0 => rng.random(),
                        1 => words.layout[i].wrapping_add(rng.random_range(0..3)).wrapping_sub(1),
                        _ => 0,
                    };
                }
                1 if !words.buffers.is_empty() => {
                    let i = rng.random_range(0..words.buffers.len());
                    words.buffers[i] ^= 1 << rng.random_range(0..64);
                }
                2 => words.layout.truncate(rng.random_range(0..=words.layout.len())),
                _ => words.buffers.truncate(rng.random_range(0..=words.buffers.len())),
            }
        }
        let fields: Vec<_> = batch.schema().fields().iter().cloned().collect();
        match decode::decode(&fields, rows, &words.layout, words.buffers, u64::MAX) {
            Err(_) => refused += 1,
            Ok(arrays) => {
                for array in arrays {
                    array.to_data().validate_full().unwrap();
                    assert!(array.len() == rows && format!("{array:?}").len() > 1);
                }
            }
        }
    }
    assert!(refused > 1000, "{refused}");
}

fn position(schema: &Schema, name: &str) -> u32 {
    let (_, places) = flatten(schema.fields()).unwrap();
    places.iter().position(|p| p.name == name).unwrap() as u32
}

#[test]
fn changes_say_what_becomes_of_each_field() {
    let rng = &mut SmallRng::seed_from_u64(1);
    let batch = batch(rng, 5);
    let schema = batch.schema();
    let at = |name| position(&schema, name);
    let field =
        |name: &str, data_type| columns::Field { name: name.into(), data_type, nullable: true, children: 0 };
    let binding = Binding {
        reads: vec![at("inner.text"), at("id")],
        changes: vec![
            columns::Change::Remove(at("flag")),
            columns::Change::Rename(columns::Rename { field: at("bytes"), name: "raw".into() }),
            columns::Change::Replace(at("inner.text")),
            columns::Change::Add,
            columns::Change::Remove(at("inner.flag")),
        ],
        computed: vec![field("masked", columns::DataType::Utf8), field("more", columns::DataType::Int64)],
    };
    let bound = Offered::new(schema.clone()).unwrap().bind(Answer::Columns(binding), false).unwrap();
    let names: Vec<_> = bound.output.fields().iter().map(|f| f.name().as_str()).collect();
    assert_eq!(names, ["id", "text", "raw", "sixteen", "total", "at", "inner", "list", "map", "more"]);
    let DataType::Struct(members) = bound.output.field(6).data_type() else { panic!() };
    let names: Vec<_> = members.iter().map(|f| f.name().as_str()).collect();
    assert_eq!(names, ["id", "masked", "bytes", "sixteen", "total", "at"]);
    // A member that is read alone is null where its parent is.
    let read = bound.read(&batch);
    let inner = batch.column_by_name("inner").unwrap();
    let parents = (0..5).filter(|i| inner.is_null(*i)).count();
    assert!(read[0].1.as_ref().is_some_and(|n| n.null_count() >= parents && parents > 0));
    let computed: [ArrayRef; 2] =
        [Arc::new(StringArray::from(vec!["*"; 5])), Arc::new(Int64Array::from_iter_values(0..5))];
    let output = bound.output(batch.columns(), &computed, 5).unwrap();
    assert_eq!(output.column(9), &computed[1]);
    assert_eq!(output.column(2), batch.column(3));
    let inner = output.column(6).as_any().downcast_ref::<StructArray>().unwrap();
    assert_eq!((inner.column(1), inner.null_count()), (&computed[0], parents));
}

#[test]
fn a_binding_that_makes_no_sense_is_refused_with_what_is_wrong() {
    let schema = Arc::new(Schema::new(fields(true)));
    let at = |name| position(&schema, name);
    let text = |name: &str| columns::Field {
        name: name.into(),
        data_type: columns::DataType::Utf8,
        nullable: true,
        children: 0,
    };
    let with = |reads: Vec<u32>, changes: Vec<columns::Change>, computed: Vec<columns::Field>| {
        Offered::new(schema.clone())
            .unwrap()
            .bind(Answer::Columns(Binding { reads, changes, computed }), false)
            .unwrap_err()
    };
    use columns::Change::{Add, Remove, Rename, Replace};
    let rename = |field, name: &str| Rename(columns::Rename { field, name: name.into() });
    let strange =
        columns::Field { data_type: columns::DataType::Time32(columns::TimeUnit::Nanosecond), ..text("t") };
    let childless = columns::Field { data_type: columns::DataType::Struct, ..text("s") };
    let cases = [
        (with(vec![999], vec![], vec![]), "it reads field 999, there are 28"),
        (with(vec![1, 1], vec![], vec![]), "it reads the field id twice"),
        (
            with(vec![at("map.entries.key")], vec![], vec![]),
            "it reads map.entries.key, which is inside a list or a map: only these as a whole",
        ),
        (
            with(vec![], vec![Remove(at("list.item.id"))], vec![]),
            "it removes list.item.id, which is inside a list or a map: only these as a whole",
        ),
        (with(vec![], vec![Remove(0), rename(0, "x")], vec![]), "it changes the field flag twice"),
        (
            with(vec![], vec![Remove(at("inner")), Remove(at("inner.id"))], vec![]),
            "it changes both the field inner and one of its members",
        ),
        (with(vec![], vec![rename(0, "id")], vec![]), "the output would have two fields id"),
        (
            with(vec![], vec![rename(0, "")], vec![]),
            "a name in the output is not 1 to 255 bytes without control characters",
        ),
        (with(vec![], vec![Add], vec![]), "it changes more columns than the 0 that it computes"),
        (with(vec![], vec![], vec![text("x")]), "it computes 1 columns and uses 0"),
        (
            with(vec![], vec![Replace(0)], vec![strange]),
            "the computed field \"t\" is a time32, which is of seconds or milliseconds",
        ),
        (
            with(vec![], vec![Add], vec![childless]),
            "the computed field \"s\" has 0 children, which its type does not have",
        ),
        (
            with(vec![], vec![Add], vec![columns::Field { children: 2, ..text("c") }]),
            "the list of computed fields ends before a field's children",
        ),
        (
            with(vec![], (0..7).map(|i| Remove(at("inner") + 1 + i)).collect(), vec![]),
            "it removes all members of inner: remove inner itself",
        ),
    ];
    for (found, expected) in cases {
        assert_eq!(found, expected);
    }
    let odd = Schema::new(vec![Field::new("u", DataType::LargeUtf8, true)]);
    let refused = Offered::new(Arc::new(odd)).err().unwrap();
    assert_eq!(refused, "column u is of type LargeUtf8, which transforms cannot take");
}

/// The seeds of the fuzz target, and each with a few words changed at random. `UPDATE_SEEDS=1` writes them anew.
#[test]
fn seeds_of_the_fuzz_target_and_what_is_near_them_are_refused_or_valid() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/columns");
    let fields = super::fuzzing::fields();
    let mut rng = SmallRng::seed_from_u64(5);
    if std::env::var_os("UPDATE_SEEDS").is_some() {
        for rows in [0, 1, 3, 9] {
            for (i, some) in fields.chunks(1).chain([&fields[..]]).enumerate() {
                let columns: Vec<_> = some
                    .iter()
                    .map(|f| array(&mut rng, f, rows))
                    .map(|a| (a.clone(), a.nulls().cloned()))
                    .collect();
                let mut words = Words::default();
                words.fill(&columns, &(0..rows));
                std::fs::write(folder.join(format!("{rows}-{i}")), seed(rows, &words.layout, &words.buffers))
                    .unwrap();
            }
        }
    }
    let mut seeds = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let (rows, layout, buffers) = unseed(&std::fs::read(entry.unwrap().path()).unwrap());
        super::fuzzing::columns(rows, &layout, buffers.clone());
        for _ in 0..60 {
            let (mut layout, mut buffers) = (layout.clone(), buffers.clone());
            for _ in 0..rng.random_range(1..4) {
                match rng.random_range(0..2) {
                    0 if !layout.is_empty() => {
                        let at = rng.random_range(0..layout.len());
                        layout[at] = [rng.random_range(0..12), rng.random(), layout[at].wrapping_add(1)]
                            [rng.random_range(0..3)];
                    }
                    _ if !buffers.is_empty() => {
                        let at = rng.random_range(0..buffers.len());
                        buffers[at] ^= 1 << rng.random_range(0..64);
                    }
                    _ => {}
                }
            }
            super::fuzzing::columns(rows, &layout, buffers);
        }
        seeds += 1;
    }
    assert!(seeds > 20, "{seeds} seeds");
}

/// As libFuzzer's target reads it: collections from the front, their elements one by one, and what is left over last.
fn seed(rows: usize, layout: &[u32], buffers: &[u64]) -> Vec<u8> {
    let mut bytes = vec![rows as u8];
    for word in layout {
        bytes.push(1);
        bytes.extend(word.to_le_bytes());
    }
    bytes.push(0);
    for word in buffers {
        bytes.push(1);
        bytes.extend(word.to_le_bytes());
    }
    bytes
}

fn unseed(bytes: &[u8]) -> (usize, Vec<u32>, Vec<u64>) {
    let (rows, mut rest) = (usize::from(bytes[0]), &bytes[1..]);
    let (mut layout, mut buffers) = (Vec::new(), Vec::new());
    while let [1, a, b, c, d, after @ ..] = rest {
        layout.push(u32::from_le_bytes([*a, *b, *c, *d]));
        rest = after;
    }
    rest = rest.get(1..).unwrap_or_default();
    while let [1, after @ ..] = rest
        && let Some((word, after)) = after.split_first_chunk::<8>()
    {
        buffers.push(u64::from_le_bytes(*word));
        rest = after;
    }
    (rows, layout, buffers)
}

#[test]
fn the_bytes_of_a_row_are_its_own_however_deep_they_are() {
    use arrow_array::builder::{ListBuilder, StringBuilder};

    let mut lists = ListBuilder::new(ListBuilder::new(StringBuilder::new()));
    for row in [vec![vec!["a", "bc"], vec![]], vec![], vec![vec!["d".repeat(1000).as_str()], vec!["ef"]]] {
        for inner in row {
            inner.iter().for_each(|text| lists.values().values().append_value(text));
            lists.values().append(true);
        }
        lists.append(true);
    }
    let lists = lists.finish();
    let bytes = |rows| encode::bytes_in(&lists, rows);
    assert_eq!([bytes(0..1), bytes(1..2), bytes(2..3), bytes(0..3)], [3, 0, 1002, 1005]);
    assert_eq!(encode::bytes_in(&lists.slice(2, 1), 0..1), 1002);
}
