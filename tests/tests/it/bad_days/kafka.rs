//! Brokers that are not there or refuse, and topics that are missing.

use gristmill_tests::unique;

use super::bench::{Bench, Told, World};
use crate::service::free_address;

pub(super) fn nobody_listens(world: &World) -> Told {
    let bench = Bench::new(world);
    let address = free_address().to_string();
    bench.call(address.clone(), "kafka:9092");
    bench.file(|p| p.servers = address);
    let told = bench.refuses_to_start(1);
    bench.file(|_| {});
    bench.goes_on();
    told
}

/// As a user with a password, which stands in the file `password`.
fn as_user(bench: &Bench<'_>, user: &str, password: &str) {
    bench.beside("password", password);
    let properties = format!(
        "{{security.protocol: SASL_PLAINTEXT, sasl.mechanism: PLAIN, sasl.username: {user}, sasl.password: '${{file:password}}'}}"
    );
    bench.file(|p| (p.servers, p.properties) = (bench.world.kafka.password_servers(), properties));
}

pub(super) fn wrong_password(world: &World) -> Told {
    let bench = Bench::new(world);
    as_user(&bench, "ada", "byron");
    let told = bench.refuses_to_start(1);
    as_user(&bench, "ada", "lovelace");
    bench.goes_on();
    told
}

pub(super) fn topic_not_allowed(world: &World) -> Told {
    let bench = Bench::new(world);
    as_user(&bench, "eve", "polastri");
    let told = bench.refuses_to_start(1);
    world.kafka.allow("eve", &["--consumer", "--topic", &bench.topic, "--group", &bench.group]);
    bench.goes_on();
    told
}

pub(super) fn group_not_allowed(world: &World) -> Told {
    let bench = Bench::new(world);
    as_user(&bench, "eve", "polastri");
    world.kafka.allow("eve", &["--operation", "Read", "--topic", &bench.topic]);
    let told = bench.refuses_to_start(1);
    world.kafka.allow("eve", &["--operation", "Read", "--group", &bench.group]);
    bench.goes_on();
    told
}

/// One of two topics, so that there would be something to read.
pub(super) fn topic_missing(world: &World) -> Told {
    let bench = Bench::new(world);
    let missing = unique("payments");
    bench.call(missing.clone(), "payments");
    bench.file(|p| p.topics = format!("{}, {missing}", bench.topic));
    let told = bench.refuses_to_start(1);
    world.runtime.block_on(world.kafka.create_topic(&missing, 1, &[]));
    bench.goes_on();
    told
}

pub(super) fn dead_letter_topic_missing(world: &World) -> Told {
    let bench = Bench::new(world);
    let missing = unique("letters");
    bench.call(missing.clone(), "letters");
    bench.file(|p| p.more = format!("dead_letters: {{topic: {missing}}}\n"));
    let told = bench.refuses_to_start(1);
    world.runtime.block_on(world.kafka.create_topic(&missing, 1, &[]));
    bench.goes_on();
    told
}
