//! A transform of whole columns as arrow-rs arrays, in the sandbox.

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{BooleanArray, RecordBatch};
use arrow_schema::Schema;
use arrow_select::filter::filter_record_batch;
use gristmill_smt::Limits;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use std::sync::{Arc, OnceLock};

use crate::columns::{all_kinds, apply, guest, kinds, repeated};
use crate::support::stream;

#[test]
fn arrays_of_every_type_come_and_go_as_typed_rows_do() {
    static WASM: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    let (Some(rows), Some(arrays)) = (kinds(), guest("arrow-kinds", &WASM, Limits::default())) else {
        return;
    };
    let schema = Arc::new(Schema::new(all_kinds()));
    let rng = &mut SmallRng::seed_from_u64(11);
    let bound = |transform: &gristmill_smt::Transform, config| {
        transform.instantiate_columns(&stream(), &config, &schema).unwrap_or_else(|e| panic!("{e}"))
    };
    let mut rows = bound(&rows, json!({}));
    let mut every = bound(&arrays, json!({"emit": true}));
    let mut some = bound(&arrays, json!({"below": 0}));
    for round in 0..40 {
        let count = if round == 0 { 0 } else { rng.random_range(1..40) };
        let columns = all_kinds().iter().map(|f| repeated(rng, f, count)).collect();
        let input = RecordBatch::try_new(schema.clone(), columns).unwrap();
        let expected = apply(&mut rows, &input);
        let expected = expected.batch();

        let found = apply(&mut every, &input);
        assert_eq!(found.rejects(), []);
        let emitted: Vec<usize> =
            found.rows().iter().enumerate().filter(|(_, row)| row.output == 1).map(|(at, _)| at).collect();
        // What is emitted for the first row comes behind it, with that row's values.
        assert_eq!(emitted, if count == 0 { vec![] } else { vec![1] });
        let main: BooleanArray = (0..found.rows().len()).map(|at| Some(!emitted.contains(&at))).collect();
        assert_eq!(&filter_record_batch(found.batch(), &main).unwrap(), expected);
        if count > 0 {
            assert_eq!(found.batch().slice(1, 1), expected.slice(0, 1));
        }

        let found = apply(&mut some, &input);
        let numbers = input.column_by_name("i64").unwrap().as_primitive::<Int64Type>();
        let below: BooleanArray = numbers.iter().map(|n| n.map(|n| n < 0)).collect();
        assert_eq!(found.batch(), &filter_record_batch(expected, &below).unwrap());
        assert_eq!(found.dropped(), count - found.kept());
    }
}
