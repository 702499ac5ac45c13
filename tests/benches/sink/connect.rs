//! The yardstick of the JSON path: a standalone Kafka Connect worker with four SMTs and a sink that throws
//! records away.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::process::Process;

/// What the second half of the records has cost, when the JVM was warm.
pub(crate) struct Warm {
    /// Microseconds of CPU time a record, those included that the filter has dropped.
    pub(crate) cpu: f64,
    pub(crate) records_per_second: f64,
    pub(crate) resident: f64,
}

/// Reads `records` of a topic of which one in five is dropped. `Err` says what is missing on this machine.
pub(crate) fn run(bootstrap: &str, topic: &str, records: u64, folder: &Path) -> Result<Warm, String> {
    let libs = gristmill_tests::connect_libs()?;
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("kafka");
    let classes = folder.join("classes");
    let compiled = Command::new("javac")
        .arg("-cp")
        .arg(libs.join("*"))
        .arg("-d")
        .arg(&classes)
        .arg(sources.join("connect/CountingSink.java"))
        .status()
        .map_err(|e| format!("javac does not start: {e}"))?;
    assert!(compiled.success(), "CountingSink.java compiles");
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
    let worker = folder.join("worker.properties");
    let offsets = folder.join("offsets");
    let text = format!(
        "bootstrap.servers={bootstrap}\nkey.converter=org.apache.kafka.connect.storage.StringConverter\n\
         value.converter=org.apache.kafka.connect.json.JsonConverter\nvalue.converter.schemas.enable=false\n\
         offset.storage.file.filename={}\nlisteners=http://127.0.0.1:{port}\n",
        offsets.display()
    );
    fs::write(&worker, text).expect("the folder is ours");
    let sink = folder.join("sink.properties");
    let transforms = "org.apache.kafka.connect.transforms";
    let text = format!(
        "name=counting\nconnector.class=CountingSink\ntasks.max=1\ntopics={topic}\n\
         transforms=filter,replace,mask,insert\npredicates=test\n\
         predicates.test.type={transforms}.predicates.HasHeaderKey\npredicates.test.name=test\n\
         transforms.filter.type={transforms}.Filter\ntransforms.filter.predicate=test\n\
         transforms.replace.type={transforms}.ReplaceField$Value\n\
         transforms.replace.exclude=ip,user_agent,session\n\
         transforms.replace.renames=order_id:id,amount_cents:amount\n\
         transforms.mask.type={transforms}.MaskField$Value\ntransforms.mask.fields=card\n\
         transforms.insert.type={transforms}.InsertField$Value\ntransforms.insert.timestamp.field=received_at\n"
    );
    fs::write(&sink, text).expect("the folder is ours");
    let log = folder.join("worker.log");
    let mut java = Command::new("java");
    // The heap and the collector that Kafka's own start script sets.
    java.args(["-Xms256m", "-Xmx2g", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"])
        .args(["-XX:InitiatingHeapOccupancyPercent=35", "-XX:+ExplicitGCInvokesConcurrent"])
        .arg(format!("-Dlog4j2.configurationFile={}", sources.join("log4j2.xml").display()))
        .arg(format!("-Dkafka.log={}", log.display()))
        .arg("-cp")
        .arg(format!("{}:{}/*", classes.display(), libs.display()))
        .arg("org.apache.kafka.connect.cli.ConnectStandalone")
        .args([&worker, &sink])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut worker = Process::spawn(java);
    let output = BufReader::new(worker.child().stdout.take().expect("it is piped"));
    let kept = records * 4 / 5;
    let mut half = None;
    for line in output.lines() {
        let line = line.expect("the worker writes text");
        let Some(count) = line.strip_prefix("counted ").and_then(|n| n.parse::<u64>().ok()) else { continue };
        if half.is_none() && count >= kept / 2 {
            half = Some((count, worker.cpu(), Instant::now()));
        }
        // The sink tells in steps.
        if let Some((before, cpu, since)) = half
            && count + 40_000 >= kept
            && count > before
        {
            let read = (count - before) as f64 * 5.0 / 4.0;
            return Ok(Warm {
                cpu: (worker.cpu() - cpu) * 1e6 / read,
                records_per_second: read / since.elapsed().as_secs_f64(),
                resident: worker.most_resident(),
            });
        }
    }
    let log = fs::read_to_string(log).unwrap_or_default();
    let tail: Vec<&str> = log.lines().rev().take(20).collect();
    panic!("the worker ended early:\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
}
