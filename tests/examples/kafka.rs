//! A real Apache Kafka for tests in other languages: says where it listens in one line, and ends with its standard input.
//!
//! `cargo run --package gristmill-tests --example kafka -- 3` starts three nodes.

use std::io::{Read, Write};

use gristmill_tests::RealKafka;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let nodes = std::env::args().nth(1).map_or(Ok(1), |nodes| nodes.parse())?;
    let kafka = RealKafka::start(nodes).ok_or("there is no Kafka here; see what was said before")?;
    println!("{}", kafka.bootstrap_servers());
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
