//! A transform of columns that attacks its host. What it does is named by `attack` in its configuration, and done in
//! calls that hold the id 666; the others are answered as they should be. Speaks the contract without the SDK, which would
//! not let it lie.

wit_bindgen::generate!({ world: "column-transform", path: "../../../../wit" });

use gristmill::transform::columns::{Change, DataType, Field, TimeUnit, TimestampType};
use gristmill::transform::types;

struct Hostile;
export!(Hostile);

static mut ATTACK: String = String::new();

#[allow(static_mut_refs)]
fn attack() -> &'static str {
    // One thread, and written in `configure_columns` alone.
    unsafe { &ATTACK }
}

const KEEP: u32 = 0;
const SET_KEY: u32 = 2;
const SET_VALUE: u32 = 3;
const SET_TIMESTAMP: u32 = 5;
const EMIT: u32 = 7;
const NULL: u32 = u32::MAX;

fn field(name: &str, data_type: DataType, nullable: bool, children: u32) -> Field {
    Field { name: name.into(), data_type, nullable, children }
}

impl Guest for Hostile {
    fn describe() -> Manifest {
        Manifest {
            name: "column-hostile".into(),
            version: "1".into(),
            description: "attacks its host".into(),
            config_schema: r#"{"type": "object", "properties": {"attack": {"type": "string"}}}"#.into(),
            outputs: Vec::new(),
            reads: types::Reads::empty(),
            columns: Vec::new(),
        }
    }

    fn configure_columns(c: ColumnConfiguration) -> Result<Binding, String> {
        let attack =
            c.config.split("\"attack\":\"").nth(1).and_then(|s| s.split('"').next()).unwrap_or_default();
        unsafe { ATTACK = attack.to_owned() };
        let mut computed = vec![
            field("text", DataType::Utf8, false, 0),
            field("number", DataType::Int64, true, 0),
            field("list", DataType::List, true, 1),
            field("item", DataType::Int64, false, 0),
        ];
        match attack {
            "a time zone that is none" => {
                let zone = Some("Mars/Olympus".into());
                computed[1].data_type =
                    DataType::Timestamp(TimestampType { unit: TimeUnit::Second, timezone: zone });
            }
            "too many fields" => computed = vec![field("x", DataType::Int8, true, 0); 200_000],
            "a type without an end" => computed = vec![field("x", DataType::List, true, 1); 9_000],
            "children that overflow" => computed[2].children = u32::MAX,
            "a name of megabytes" => computed[0].name = "n".repeat(3 << 20),
            "a field that is not there" => {
                return Ok(Binding { reads: vec![u32::MAX], changes: vec![], computed: vec![] });
            }
            _ => {}
        }
        Ok(Binding { reads: vec![0], changes: vec![Change::Add, Change::Add, Change::Add], computed })
    }

    fn apply_columns(batch: ColumnBatch) -> ColumnEdits {
        let rows = batch.rows;
        let poisoned = batch.buffers[batch.layout[4] as usize..][..rows as usize].contains(&666);
        let mut answer = right(rows);
        if poisoned {
            strike(&mut answer, rows);
        }
        answer
    }
}

/// What is right: "t" and the row's number, and a list of one.
fn right(rows: u32) -> ColumnEdits {
    let n = rows as usize;
    let mut buffers = Vec::new();
    let mut layout = Vec::new();
    let mut put = |layout: &mut Vec<u32>, bytes: Vec<u8>| {
        layout.extend([buffers.len() as u32, bytes.len() as u32]);
        for word in bytes.chunks(8) {
            let mut whole = [0; 8];
            whole[..word.len()].copy_from_slice(word);
            buffers.push(u64::from_le_bytes(whole));
        }
    };
    let offsets = || (0..=rows).flat_map(|i| i.to_le_bytes()).collect::<Vec<u8>>();
    let longs = || (0..u64::from(rows)).flat_map(|i| i.to_le_bytes()).collect::<Vec<u8>>();
    // The words of the layout: text 0 to 7, number 8 to 13, list 14 to 19, items 20 to 25.
    layout.extend([rows, 0]);
    put(&mut layout, vec![]);
    put(&mut layout, offsets());
    put(&mut layout, vec![b't'; n]);
    layout.extend([rows, 0]);
    put(&mut layout, vec![]);
    put(&mut layout, longs());
    layout.extend([rows, 0]);
    put(&mut layout, vec![]);
    put(&mut layout, offsets());
    layout.extend([rows, 0]);
    put(&mut layout, vec![]);
    put(&mut layout, longs());
    ColumnEdits { operations: vec![KEEP | rows << 8], data: vec![], layout, buffers }
}

fn strike(answer: &mut ColumnEdits, rows: u32) {
    let ColumnEdits { operations, data, layout, buffers } = answer;
    let word = |layout: &[u32], i: usize| layout[i] as usize;
    match attack() {
        "a column too short" => layout[8] = rows - 1,
        "a column too long" => layout[0] = rows + 1,
        "a length of four billion" => layout[8] = u32::MAX,
        "a list of four billion" => (layout[14], layout[20]) = (u32::MAX, u32::MAX),
        "items of four billion" => layout[20] = u32::MAX,
        "an offset behind the bytes" => buffers[word(layout, 4)] |= 0x7fff_ffff << 32,
        "an offset below zero" => buffers[word(layout, 4)] |= 0xffff_ffff << 32,
        "a first offset that is not zero" => buffers[word(layout, 4)] |= 1,
        "list offsets behind the items" => buffers[word(layout, 18)] |= 0x7fff_ffff << 32,
        "a buffer outside" => layout[12] = u32::MAX,
        "a buffer that ends outside" => layout[13] = u32::MAX,
        "a buffer too short" => layout[13] -= 4,
        "offsets that end within one" => layout[5] -= 3,
        "no offsets" => layout[5] = 0,
        "text that is none" => buffers[word(layout, 6)] |= 0xff,
        "a null count without a bitmap" => layout[9] = 1,
        "a null count that lies" => {
            (layout[9], layout[10], layout[11]) = (rows + 7, 0, rows.div_ceil(8));
        }
        "nulls where none may be" => {
            buffers.push(0);
            (layout[1], layout[2], layout[3]) = (rows, buffers.len() as u32 - 1, rows.div_ceil(8));
        }
        "nulls in a list where none may be" => {
            buffers.push(0);
            (layout[21], layout[22], layout[23]) = (rows, buffers.len() as u32 - 1, rows.div_ceil(8));
        }
        "a bitmap too short" => (layout[10], layout[11], layout[9]) = (0, 0, rows),
        "a layout that ends early" => layout.truncate(19),
        "no layout" => layout.clear(),
        "a layout that does not end" => layout.push(0),
        "no buffers" => buffers.clear(),
        "no operations" => operations.clear(),
        "more rows than came" => operations[0] = KEEP | (rows + 1) << 8,
        "a value set" => operations.splice(0..0, [SET_VALUE, 0, NULL]).for_each(drop),
        "a key set" => operations.splice(0..0, [SET_KEY, 0, NULL]).for_each(drop),
        "a timestamp set" => operations.splice(0..0, [SET_TIMESTAMP, 0, 0]).for_each(drop),
        "a row emitted without columns" => {
            operations.extend([EMIT, 0, NULL, 0, NULL, 0, NULL, u32::MAX, u32::MAX]);
        }
        "a row emitted with a value" => {
            data.push(1);
            operations.extend([EMIT, 0, NULL, 0, 1, 0, NULL, u32::MAX, u32::MAX]);
        }
        "a row emitted 99 times" => {
            (0..99).for_each(|_| operations.extend([EMIT, 0, NULL, 0, NULL, 0, NULL, u32::MAX, u32::MAX]));
            let ColumnEdits { layout: l, buffers: b, .. } = right(rows + 99);
            (*layout, *buffers) = (l, b);
        }
        "the same bytes for several columns" => {
            // The text of the first row, and the list's items, are the same half of a megabyte.
            let start = buffers.len() as u32;
            buffers.resize(buffers.len() + (64 << 10), 0);
            let offsets = |rows: u32| {
                let ends = (0..=rows).map(|i| if i == 0 { 0 } else { 512 << 10 });
                ends.collect::<Vec<u32>>()
            };
            let at = buffers.len() as u32;
            let ends = offsets(rows);
            buffers
                .extend(ends.chunks(2).map(|p| u64::from(p[0]) | u64::from(*p.get(1).unwrap_or(&0)) << 32));
            (layout[4], layout[5]) = (at, (rows + 1) * 4);
            (layout[6], layout[7]) = (start, 512 << 10);
            (layout[20], layout[24], layout[25]) = (64 << 10, start, 512 << 10);
        }
        "a huge answer" => buffers.resize(5 << 20, 0),
        "a trap" => panic!("as asked"),
        "a loop" => loop {
            std::hint::black_box(0);
        },
        "a hoard" => drop(std::hint::black_box(vec![1u8; 1 << 30])),
        _ => {}
    }
}
