//! Attacks below the contract: core modules that break the canonical ABI, and components that ask for what is not offered.
//! Each is written by hand, since no compiler makes them.

use std::time::{Duration, Instant};

use gristmill_smt::{ErrorKind, Instance, Limits, Transform};
use serde_json::json;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::support::{assert_only_rejected, assert_works, batch, poisoned, repository, runtime, stream};

/// A core module of the world `record-transform` that keeps all it is given; parts of it can be replaced.
struct Module {
    /// Of 52 bytes, at 1024: name, version, description, config-schema, outputs, reads, columns.
    manifest: &'static str,
    describe: &'static str,
    configure: &'static str,
    realloc: &'static str,
    /// Before it answers, if a value holds a `p`.
    poison: &'static str,
    post: &'static str,
    memory: &'static str,
    more: &'static str,
}

const HONEST: Module = Module {
    manifest: "\\00\\02\\00\\00\\04\\00\\00\\00\\04\\02\\00\\00\\01\\00\\00\\00\\05\\02\\00\\00\\01\\00\\00\\00\\08\\02\\00\\00\\02\\00\\00\\00\\00\\00\\00\\00\\00\\00\\00\\00\\02\\00\\00\\00\\00\\00\\00\\00\\00\\00\\00\\00",
    describe: "i32.const 1024",
    configure: "i32.const 3072",
    // From 64 KiB up, aligned to 16; begun anew after each batch.
    realloc: "global.get $top (global.set $top (i32.and (i32.add (i32.add (global.get $top) (local.get $len)) (i32.const 15)) (i32.const -16)))",
    poison: "",
    post: "(global.set $top (i32.const 65536))",
    memory: "(memory (export \"memory\") 16)",
    more: "",
};

impl Module {
    fn text(&self) -> String {
        let Module { manifest, describe, configure, realloc, poison, post, memory, more } = self;
        format!(
            r#"(module
  (import "gristmill:transform/log@0.1.0" "log" (func $log (param i32 i32 i32)))
  (import "gristmill:transform/metrics@0.1.0" "count" (func $count (param i32 i32 i64)))
  (import "gristmill:transform/schemas@0.1.0" "schema" (func $schema (param i32 i32)))
  {memory}
  (global $top (mut i32) (i32.const 65536))
  (data (i32.const 512) "evil1d\00\00{{}}\ff\fe")
  (data (i32.const 1024) "{manifest}")
  (func $realloc (export "cabi_realloc") (param $old i32) (param $old_len i32) (param $align i32) (param $len i32) (result i32)
    {realloc})
  (func $describe (export "describe") (result i32) {describe})
  (func $configure (export "configure") (param i32 i32 i32 i32 i32) (result i32) {configure})
  (func $poisoned (param $at i32) (param $len i32) (result i32)
    (loop $next
      (if (i32.eqz (local.get $len)) (then (return (i32.const 0))))
      (if (i32.eq (i32.load8_u (local.get $at)) (i32.const 112)) (then (return (i32.const 1))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (local.set $len (i32.sub (local.get $len) (i32.const 1)))
      (br $next))
    unreachable)
  (func $apply (export "apply")
    (param $count i32) (param $index i32) (param i32) (param i32) (param i32) (param $values i32) (param $values_len i32)
    (param i32) (param i32) (param i32) (param i32) (param i32) (param i32) (result i32)
    (if (call $poisoned (local.get $values) (local.get $values_len)) (then {poison}))
    ;; KEEP of all rows; the list at 2048, the record at 2056.
    (i32.store (i32.const 2048) (i32.shl (local.get $count) (i32.const 8)))
    (i32.store (i32.const 2056) (i32.const 2048))
    (i32.store (i32.const 2060) (i32.const 1))
    (i32.store (i32.const 2064) (i32.const 0))
    (i32.store (i32.const 2068) (i32.const 0))
    (i32.const 2056))
  (func (export "cabi_post_apply") (param i32) {post})
  {more})"#
        )
    }

    fn component(&self) -> Vec<u8> {
        let mut module = wat::parse_str(self.text()).unwrap_or_else(|e| panic!("{e}"));
        let mut resolve = Resolve::default();
        let (package, _) = resolve.push_dir(repository().join("wit")).unwrap();
        let world = resolve.select_world(&[package], Some("record-transform")).unwrap();
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
        let encoder = ComponentEncoder::default().validate(false).module(&module).unwrap();
        encoder.validate(false).encode().unwrap_or_else(|e| panic!("{e:#}"))
    }

    fn load(&self) -> Result<Transform, gristmill_smt::Error> {
        let limits = Limits::default()
            .with_memory(4 << 20)
            .with_output_bytes(1 << 20)
            .with_call_timeout(Duration::from_millis(100))
            .with_configure_timeout(Duration::from_secs(1))
            .with_record_fuel(20_000_000);
        runtime().load(&self.component(), limits)
    }

    fn instance(&self) -> Instance {
        let transform = self.load().unwrap_or_else(|e| panic!("{e}"));
        transform.instantiate(&stream(), &json!({})).unwrap_or_else(|e| panic!("{e}"))
    }
}

/// Where the component has names, a trap says which functions it went through.
#[test]
fn a_trap_names_the_functions_that_it_went_through() {
    let more = "(func $inner unreachable) (func $outer (call $inner))";
    let mut instance = Module { poison: "(call $outer)", more, ..HONEST }.instance();
    let applied = instance.apply(&poisoned(3, &[1])).unwrap();
    let text = &applied.rejects()[0].message;
    assert!(text.ends_with("; in inner, called by outer, called by apply"), "{text}");
}

/// Whatever one transform does, another on the same runtime is as it was.
fn assert_host_is_well() {
    assert_works(&mut HONEST.instance());
}

/// `UPDATE_SEEDS=1` writes it to the seeds of the fuzz target.
#[test]
fn the_honest_module_keeps_what_it_is_given() {
    if std::env::var_os("UPDATE_SEEDS").is_some() {
        let path = repository().join("smt-runtime/fuzz/seeds/component/honest.wasm");
        std::fs::write(path, HONEST.component()).unwrap();
    }
    assert_host_is_well();
}

/// In the answer to a poison among others: it is rejected alone, and the next batch is whole.
#[test]
fn an_answer_that_breaks_the_canonical_abi_costs_the_record_that_it_is_about() {
    let mut wrong = Vec::new();
    for (attack, poison, code, message) in [
        ("a record behind the memory", "(return (i32.const -16))", "TRANSFORM_TRAP", "out of bounds"),
        (
            "a record that ends behind the memory",
            "(return (i32.const 1048568))",
            "TRANSFORM_TRAP",
            "out of bounds",
        ),
        ("a record that is not aligned", "(return (i32.const 2057))", "TRANSFORM_TRAP", "not aligned"),
        (
            "a list behind the memory",
            "(i32.store (i32.const 2056) (i32.const -16)) (i32.store (i32.const 2060) (i32.const 2)) (return (i32.const 2056))",
            "TRANSFORM_TRAP",
            "out of bounds",
        ),
        (
            "a list that is not aligned",
            "(i32.store (i32.const 2056) (i32.const 2049)) (i32.store (i32.const 2060) (i32.const 1)) (return (i32.const 2056))",
            "TRANSFORM_TRAP",
            "not aligned",
        ),
        (
            "a list whose bytes overflow",
            "(i32.store (i32.const 2056) (i32.const 2048)) (i32.store (i32.const 2060) (i32.const 0x40000001)) (return (i32.const 2056))",
            "TRANSFORM_TRAP",
            "",
        ),
        (
            "a list of four billion bytes",
            "(i32.store (i32.const 2056) (i32.const 2048)) (i32.store (i32.const 2060) (i32.const 0)) (i32.store (i32.const 2064) (i32.const 0)) (i32.store (i32.const 2068) (i32.const -1)) (return (i32.const 2056))",
            "TRANSFORM_TRAP",
            "out of bounds",
        ),
        (
            "a list of more than is taken",
            "(drop (memory.grow (i32.const 32))) (i32.store (i32.const 2056) (i32.const 2048)) (i32.store (i32.const 2060) (i32.const 0)) (i32.store (i32.const 2064) (i32.const 0)) (i32.store (i32.const 2068) (i32.const 2097152)) (return (i32.const 2056))",
            "TRANSFORM_OUTPUT",
            "limit output_bytes of 1048576",
        ),
        (
            "both lists in one place",
            "(i32.store (i32.const 2048) (i32.const 0xffffffff)) (i32.store (i32.const 2056) (i32.const 2048)) (i32.store (i32.const 2060) (i32.const 8)) (i32.store (i32.const 2064) (i32.const 2048)) (i32.store (i32.const 2068) (i32.const 32)) (return (i32.const 2056))",
            "TRANSFORM_INVALID_EDITS",
            "",
        ),
        (
            "a message behind the memory",
            "(call $log (i32.const 2) (i32.const -8) (i32.const 16))",
            "TRANSFORM_TRAP",
            "out of bounds",
        ),
        (
            "a message that is no UTF-8",
            "(call $log (i32.const 2) (i32.const 522) (i32.const 2))",
            "TRANSFORM_TRAP",
            "utf-8",
        ),
        (
            "a level that there is not",
            "(call $log (i32.const 9) (i32.const 512) (i32.const 4))",
            "TRANSFORM_TRAP",
            "unexpected discriminant: 9",
        ),
        (
            "a message of more than is taken",
            "(drop (memory.grow (i32.const 40))) (call $log (i32.const 2) (i32.const 0) (i32.const 2600000))",
            "TRANSFORM_OUTPUT",
            "limit output_bytes of 1048576",
        ),
        (
            "a metric's name behind the memory",
            "(call $count (i32.const -4) (i32.const 8) (i64.const 1))",
            "TRANSFORM_TRAP",
            "out of bounds",
        ),
        (
            "a schema to behind the memory",
            "(call $schema (i32.const 1) (i32.const -4))",
            "TRANSFORM_TRAP",
            "out of bounds",
        ),
        (
            "a schema to where nothing is aligned",
            "(call $schema (i32.const 1) (i32.const 2051))",
            "TRANSFORM_TRAP",
            "not aligned",
        ),
        (
            "memory up to the limit and beyond",
            "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable",
            "TRANSFORM_MEMORY",
            "limit memory of 4194304",
        ),
        (
            "recursion",
            "(drop (call $apply (local.get 0) (local.get 1) (local.get 2) (local.get 3) (local.get 4) (local.get 5) (local.get 6) (local.get 7) (local.get 8) (local.get 9) (local.get 10) (local.get 11) (local.get 12)))",
            "TRANSFORM_TRAP",
            "call stack exhausted",
        ),
        (
            "a loop of calls of the host",
            "(loop $l (call $count (i32.const 512) (i32.const 4) (i64.const 1)) (br $l))",
            "TRANSFORM_FUEL",
            "limit record_fuel",
        ),
        (
            "a division by zero",
            "(drop (i32.div_s (i32.const 1) (i32.const 0)))",
            "TRANSFORM_TRAP",
            "divide by zero",
        ),
    ] {
        let started = Instant::now();
        let mut instance = Module { poison, ..HONEST }.instance();
        let applied = instance.apply(&poisoned(20, &[13])).unwrap_or_else(|e| panic!("{attack}: {e}"));
        match applied.rejects() {
            [reject] if reject.code == code && reject.message.contains(message) => {
                assert_only_rejected(&applied, &[13], code, message);
            }
            rejects => wrong.push(format!("{attack}: {rejects:?}")),
        }
        assert_works(&mut instance);
        assert!(started.elapsed() < Duration::from_secs(20), "{attack}: {:?}", started.elapsed());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_host_is_well();
}

/// What lies about memory, or does something when it is only asked for it, or after the answer, does so for every record.
#[test]
fn a_realloc_that_lies_and_a_post_return_that_attacks_reject_what_they_are_given() {
    let mut wrong = Vec::new();
    for (attack, module, code, message) in [
        (
            "a place behind the memory",
            Module { realloc: "i32.const -16", ..HONEST },
            "TRANSFORM_TRAP",
            "realloc",
        ),
        (
            "a place that is not aligned",
            Module { realloc: "i32.const 65537", ..HONEST },
            "TRANSFORM_TRAP",
            "not aligned",
        ),
        (
            "a place too near the end",
            Module { realloc: "i32.const 1048568", ..HONEST },
            "TRANSFORM_TRAP",
            "realloc",
        ),
        ("no place", Module { realloc: "unreachable", ..HONEST }, "TRANSFORM_TRAP", "unreachable"),
        (
            "a place that never comes",
            Module { realloc: "(loop $l (br $l)) i32.const 0", ..HONEST },
            "TRANSFORM_FUEL",
            "limit record_fuel",
        ),
        (
            "a place with a hoard",
            Module {
                realloc: "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable",
                ..HONEST
            },
            "TRANSFORM_MEMORY",
            "limit memory of 4194304",
        ),
        (
            "a call of the host while it lowers",
            Module {
                realloc: "(call $log (i32.const 2) (i32.const 512) (i32.const 4)) i32.const 65536",
                ..HONEST
            },
            "TRANSFORM_TRAP",
            "cannot leave component instance",
        ),
        (
            "a trap after the answer",
            Module { post: "unreachable", ..HONEST },
            "TRANSFORM_TRAP",
            "unreachable",
        ),
        (
            "a loop after the answer",
            Module { post: "(loop $l (br $l))", ..HONEST },
            "TRANSFORM_FUEL",
            "limit record_fuel",
        ),
        (
            "a call of the host after the answer",
            Module { post: "(call $log (i32.const 2) (i32.const 512) (i32.const 4))", ..HONEST },
            "TRANSFORM_TRAP",
            "cannot leave component instance",
        ),
    ] {
        let started = Instant::now();
        let transform = module.load().unwrap_or_else(|e| panic!("{attack}: {e}"));
        // Configuring lowers texts already: what is never well does not start.
        match transform.instantiate(&stream(), &json!({})) {
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Configure, "{attack}: {e}");
                let cause = match code {
                    "TRANSFORM_FUEL" => "limit configure_timeout of 1s",
                    _ => message,
                };
                if !e.to_string().contains(cause) {
                    wrong.push(format!("{attack}: {e}"));
                }
            }
            Ok(mut instance) => {
                let applied = instance.apply(&batch(["one"])).unwrap_or_else(|e| panic!("{attack}: {e}"));
                match applied.rejects() {
                    [reject] if reject.code == code && reject.message.contains(message) => {}
                    rejects => wrong.push(format!("{attack}: {rejects:?}")),
                }
            }
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{attack}: {:?}", started.elapsed());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_host_is_well();
}

/// Places given out twice overwrite what the guest is given, and nothing of the host's.
#[test]
fn a_realloc_that_overlaps_harms_the_guest_alone() {
    let mut instance = Module { realloc: "i32.const 65536", ..HONEST }.instance();
    let applied = instance.apply(&poisoned(50, &[])).unwrap();
    assert_only_rejected(&applied, &[], "", "");
    // Over its own code's data: the manifest was read before, and the answer is checked as ever.
    let mut instance = Module { realloc: "i32.const 2048", ..HONEST }.instance();
    assert_works(&mut instance);
    assert_host_is_well();
}

/// Before the first record: refused with what is wrong, in bounded time.
#[test]
fn a_start_that_attacks_is_refused() {
    let trap = "the transform trapped";
    let mut wrong = Vec::new();
    let grow = "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable";
    for (attack, module, message) in [
        ("a start function that traps", Module { more: "(func $s unreachable) (start $s)", ..HONEST }, trap),
        (
            "a start function that loops",
            Module { more: "(func $s (loop $l (br $l))) (start $s)", ..HONEST },
            "limit configure_timeout of 1s",
        ),
        (
            "a start function that hoards",
            Module {
                more: "(func $s (loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable) (start $s)",
                ..HONEST
            },
            "limit memory of 4194304",
        ),
        (
            "a table that grows in the start function",
            Module {
                more: "(table $t 1 funcref) (func $s (if (i32.eq (table.grow $t (ref.null func) (i32.const 10000000)) (i32.const -1)) (then unreachable))) (start $s)",
                ..HONEST
            },
            trap,
        ),
        ("a manifest behind the memory", Module { describe: "i32.const -4", ..HONEST }, "out of bounds"),
        ("a manifest that is not aligned", Module { describe: "i32.const 1025", ..HONEST }, "not aligned"),
        ("a manifest that traps", Module { describe: "unreachable", ..HONEST }, "unreachable"),
        (
            "a manifest that never comes",
            Module { describe: "(loop $l (br $l)) i32.const 0", ..HONEST },
            "limit configure_timeout of 1s",
        ),
        ("a manifest with a hoard", Module { describe: grow, ..HONEST }, "limit memory of 4194304"),
        (
            "a name of four billion bytes",
            Module { describe: "(i32.store (i32.const 1028) (i32.const -1)) i32.const 1024", ..HONEST },
            "out of bounds",
        ),
        (
            "a name that is no UTF-8",
            Module {
                describe: "(i32.store (i32.const 1024) (i32.const 522)) (i32.store (i32.const 1028) (i32.const 2)) i32.const 1024",
                ..HONEST
            },
            "utf-8",
        ),
        (
            "a name that is empty",
            Module { describe: "(i32.store (i32.const 1028) (i32.const 0)) i32.const 1024", ..HONEST },
            "its name \"\" is not",
        ),
        (
            "a description of half a megabyte",
            Module {
                describe: "(i32.store (i32.const 1040) (i32.const 100000)) (i32.store (i32.const 1044) (i32.const 500000)) i32.const 1024",
                ..HONEST
            },
            "its description has 500000 bytes",
        ),
        (
            "a schema that is none",
            Module { describe: "(i32.store (i32.const 1052) (i32.const 1)) i32.const 1024", ..HONEST },
            "its config-schema is not JSON",
        ),
        (
            "outputs of a hundred million",
            Module {
                describe: "(i32.store (i32.const 1060) (i32.const 100000000)) i32.const 1024",
                ..HONEST
            },
            "out of bounds",
        ),
        (
            "sixty thousand outputs in one place",
            Module {
                describe: "(i32.store (i32.const 1056) (i32.const 16384)) (i32.store (i32.const 1060) (i32.const 60000)) i32.const 1024",
                ..HONEST
            },
            "",
        ),
        (
            "columns of a hundred million",
            Module {
                describe: "(i32.store (i32.const 1072) (i32.const 100000000)) i32.const 1024",
                ..HONEST
            },
            "out of bounds",
        ),
        (
            "more memory than the limit",
            Module { memory: "(memory (export \"memory\") 65)", ..HONEST },
            "limit memory of 4194304",
        ),
        ("a table of a million", Module { more: "(table 1000000 funcref)", ..HONEST }, "table"),
    ] {
        let started = Instant::now();
        match module.load() {
            Ok(_) => wrong.push(format!("{attack}: it loads")),
            Err(e) => {
                assert!(
                    matches!(e.kind(), ErrorKind::Load | ErrorKind::Limit),
                    "{attack}: {:?} {e}",
                    e.kind()
                );
                if !e.to_string().contains(message) {
                    wrong.push(format!("{attack}: {e}"));
                }
                assert!(e.to_string().len() < 1000, "{attack}: the text is {} long", e.to_string().len());
            }
        }
        assert!(started.elapsed() < Duration::from_secs(10), "{attack}: {:?}", started.elapsed());
    }
    for (attack, configure, message) in [
        ("an answer behind the memory", "i32.const -4", "out of bounds"),
        (
            "an answer that is neither",
            "(i32.store8 (i32.const 3072) (i32.const 7)) i32.const 3072",
            "discriminant",
        ),
        (
            "a refusal of half a megabyte",
            "(i32.store8 (i32.const 3072) (i32.const 1)) (i32.store (i32.const 3076) (i32.const 65536)) (i32.store (i32.const 3080) (i32.const 500000)) i32.const 3072",
            "it refuses its configuration",
        ),
        (
            "a refusal of four billion bytes",
            "(i32.store8 (i32.const 3072) (i32.const 1)) (i32.store (i32.const 3080) (i32.const -1)) i32.const 3072",
            "out of bounds",
        ),
    ] {
        let transform = Module { configure, ..HONEST }.load().unwrap_or_else(|e| panic!("{attack}: {e}"));
        match transform.instantiate(&stream(), &json!({})) {
            Ok(_) => wrong.push(format!("{attack}: it starts")),
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Configure, "{attack}: {e}");
                if !e.to_string().contains(message) || e.to_string().len() > 10_000 {
                    wrong.push(format!("{attack}: {} bytes: {:.300}", e.to_string().len(), e.to_string()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_host_is_well();
}

/// So many components, each the section of another: the text format refuses to go that deep.
fn nested(depth: usize) -> Vec<u8> {
    let head = b"\0asm\x0d\0\x01\0";
    (0..depth).fold(head.to_vec(), |inner, _| {
        let mut outer = [&head[..], &[4]].concat();
        let mut len = inner.len();
        while len >= 0x80 {
            outer.push(len as u8 | 0x80);
            len >>= 7;
        }
        outer.push(len as u8);
        outer.extend(inner);
        outer
    })
}

/// Features of WebAssembly that are not offered, and components beyond all measure.
#[test]
fn a_component_that_asks_for_what_is_not_offered_is_refused() {
    let core = |inside: &str| format!("(component (core module {inside}))");
    let instances = "(core instance (instantiate $m))".repeat(100);
    let memories = "(memory 0)".repeat(101);
    let mut ty = "(type $t0 u8)".to_owned();
    (1..2_000).for_each(|i| ty.push_str(&format!("(type $t{i} (list $t{}))", i - 1)));
    let mut wide = "(type $t0 (tuple u8 u8))".to_owned();
    (1..64).for_each(|i| wide.push_str(&format!("(type $t{i} (tuple $t{0} $t{0}))", i - 1)));
    let mut wrong = Vec::new();
    for (attack, text, message) in [
        ("memory of 64 bits", core("(memory i64 1)"), "memory64"),
        ("shared memory", core("(memory 1 1 shared)"), "threads"),
        ("atomic instructions", core("(memory 1) (func (drop (i32.atomic.load (i32.const 0))))"), "threads"),
        ("relaxed vector instructions", core("(func (drop (i8x16.relaxed_swizzle (v128.const i64x2 0 0) (v128.const i64x2 0 0))))"), "relaxed"),
        ("tail calls without a floor", core("(func $f (return_call $f))"), ""),
        ("exceptions", core("(tag (param i32))"), "exceptions"),
        ("references to structs", core("(type (struct (field i32)))"), "gc"),
        ("stack switching", core("(type $f (func)) (type $c (cont $f))"), ""),
        ("a hundred memories", core(&memories), "memories"),
        ("a hundred core instances", format!("(component (core module $m) {instances})"), "instances"),
        ("an async function", "(component (core module $m (func (export \"f\") (result i32) i32.const 0) (func (export \"c\") (param i32 i32 i32) (result i32) i32.const 0)) (core instance $i (instantiate $m)) (func $f async (canon lift (core func $i \"f\") async (callback (core func $i \"c\")))) (export \"apply\" (func $f)))".into(), "async"),
        ("components in each other", String::new(), ""),
        ("a type two thousand lists deep", format!("(component {ty})"), ""),
        ("a type of 2^64 bytes", format!("(component {wide})"), ""),
        ("a resource of its own", "(component (import \"r\" (type (sub resource))))".into(), "imports `r`, which is not offered"),
        ("a function of another name", "(component (import \"gristmill:transform/log@0.1.0\" (instance (export \"erase\" (func)))))".into(), ""),
        ("a core module from outside", "(component (import \"m\" (core module)))".into(), "imports `m`, which is not offered"),
        ("the clock of another version", "(component (import \"wasi:clocks/wall-clock@0.3.0\" (instance)))".into(), "which is not offered"),
        ("an import of a name of a megabyte", format!("(component (import \"{}\" (func)))", "a".repeat(1 << 20)), ""),
        ("a section that ends too early", String::new(), ""),
    ] {
        let started = Instant::now();
        let bytes = match attack {
            "components in each other" => nested(2_000),
            "a section that ends too early" => b"\0asm\x0d\0\x01\0\x01\xff\xff\xff\xff\x0f".to_vec(),
            _ => match wat::parse_str(&text) {
                Ok(bytes) => bytes,
                Err(e) => {
                    wrong.push(format!("{attack}: it cannot be written: {e}"));
                    continue;
                }
            },
        };
        match runtime().load(&bytes, Limits::default()) {
            Ok(_) => wrong.push(format!("{attack}: it loads")),
            Err(e) => {
                assert!(matches!(e.kind(), ErrorKind::Load | ErrorKind::Limit), "{attack}: {:?} {e}", e.kind());
                if !e.to_string().contains(message) || e.to_string().len() > 2_000 {
                    wrong.push(format!("{attack}: {} bytes: {:.300}", e.to_string().len(), e.to_string()));
                }
            }
        }
        assert!(started.elapsed() < Duration::from_secs(10), "{attack}: {:?}", started.elapsed());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_host_is_well();
}
