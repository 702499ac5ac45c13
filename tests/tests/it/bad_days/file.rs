//! Mistakes in the pipeline file and in what it names.

use super::bench::{Bench, Parts, Told, World};

/// A mistake that `pipeline check` finds, and `run` in the same words; once the file is right, all is well.
fn mistake(world: &World, spoil: impl FnOnce(&mut Parts)) -> Told {
    let bench = Bench::new(world);
    bench.file(spoil);
    let told = told_twice(&bench);
    bench.file(|_| {});
    bench.goes_on();
    told
}

fn told_twice(bench: &Bench<'_>) -> Told {
    let (code, text) = bench.pipeline.command(&["pipeline", "check"]);
    let told = bench.refuses_to_start(2);
    assert_eq!((code, bench.shown(&text)), (Some(2), told.message.clone()), "{text}");
    told
}

pub(super) fn unknown_key(world: &World) -> Told {
    mistake(world, |p| p.place = "folder: rows\n    directores: dt=%Y-%m-%d".into())
}

pub(super) fn wrong_type(world: &World) -> Told {
    mistake(world, |p| p.rotate = "{age: 1s, rows: many}".into())
}

pub(super) fn unknown_column_type(world: &World) -> Told {
    mistake(world, |p| p.decode = "{format: json, fields: {order_id: strng not null}}".into())
}

pub(super) fn variable_not_set(world: &World) -> Told {
    let bench = Bench::new(world);
    bench.file(|p| p.properties = "{sasl.password: '${env:GRISTMILL_NO_SUCH_PASSWORD}'}".into());
    let told = told_twice(&bench);
    bench.set_variable("GRISTMILL_NO_SUCH_PASSWORD", "lovelace");
    bench.goes_on();
    told
}

pub(super) fn secret_file_missing(world: &World) -> Told {
    let bench = Bench::new(world);
    bench.file(|p| p.properties = "{sasl.password: '${file:password}'}".into());
    let told = told_twice(&bench);
    bench.beside("password", "lovelace\n");
    bench.goes_on();
    told
}

pub(super) fn broken_transform(world: &World) -> Told {
    let bench = Bench::new(world);
    bench.beside("orders.wasm", "this is no component");
    bench.file(|p| p.more = "transforms: [{wasm: orders.wasm}]\n".into());
    let told = told_twice(&bench);
    bench.file(|_| {});
    bench.goes_on();
    told
}

pub(super) fn credentials_are_no_json(world: &World) -> Told {
    let bench = Bench::new(world);
    bench.beside("key.json", "hunter2");
    bench.file(|p| p.place = "gcs: {bucket: lake, prefix: rows, credentials_file: key.json}".into());
    let told = bench.refuses_to_start(2);
    bench.file(|_| {});
    bench.goes_on();
    told
}

pub(super) fn port_taken(world: &World) -> Told {
    let bench = Bench::new(world);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    bench.call(address.to_string(), "127.0.0.1:9600");
    bench.file(|p| p.more = format!("http: {{listen: '{address}'}}\n"));
    let told = bench.refuses_to_start(1);
    drop(taken);
    bench.goes_on();
    told
}
