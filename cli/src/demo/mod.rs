//! `gristmill demo`: the whole path with nothing installed.

mod orders;
mod produce;
mod result;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gristmill::MockCluster;
use gristmill_pipeline::{Ended, Metrics, Pipeline, Stop};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::watch;

use self::orders::{HIGH_VALUE_CENTS, Orders};
use crate::exit::Exit;

const TOPIC: &str = "orders";
const PARTITIONS: i32 = 4;
/// Nothing arrived for so long: something is lost or stuck.
const STALLED: Duration = Duration::from_secs(30);

/// The component that is used where none can be built. A test holds it to the source.
const PREBUILT: &[u8] = include_bytes!("../../../examples/transforms/prebuilt/orders.wasm");

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The demo starts librdkafka's mock cluster in this process, so it shows the path, not a guarantee: exactly
once is tested against a real Apache Kafka.")]
pub(crate) struct Args {
    /// Where Parquet files, dead letters and the pipeline file go; it must be empty or not there.
    #[arg(long, default_value = "demo-out")]
    folder: PathBuf,
    /// How many orders.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    orders: u64,
    /// Seed of the orders.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The source of the transform, to be compiled; without it, or where it cannot be compiled, the component in
    /// this binary is used.
    #[arg(long)]
    transform: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<(), Exit> {
    fresh_folder(&args.folder)?;
    let wasm = args.folder.join("orders.wasm");
    component(args.transform.as_deref(), &wasm)?;
    let runtime = crate::tokio_runtime()?;
    runtime.block_on(demo(args))
}

fn fresh_folder(folder: &Path) -> Result<(), Exit> {
    let cannot = |e| Exit::failed(format!("{}: {e}", folder.display()));
    std::fs::create_dir_all(folder).map_err(cannot)?;
    if std::fs::read_dir(folder).map_err(cannot)?.next().is_some() {
        return Err(Exit::mistake(format!(
            "{} is not empty: name another folder with --folder, or remove it",
            folder.display()
        )));
    }
    Ok(())
}

/// Puts the transform at `to`, and says where it comes from.
fn component(source: Option<&Path>, to: &Path) -> Result<(), Exit> {
    if let Some(source) = source {
        match crate::transform::build_component(source) {
            Ok(built) => {
                std::fs::copy(&built, to).map_err(|e| Exit::failed(format!("{}: {e}", to.display())))?;
                println!("transform: compiled from {}", source.display());
                return Ok(());
            }
            Err(error) => println!("transform: cannot be compiled here ({error})"),
        }
    }
    std::fs::write(to, PREBUILT).map_err(|e| Exit::failed(format!("{}: {e}", to.display())))?;
    println!("transform: the component in this binary, built from examples/transforms/orders");
    Ok(())
}

fn pipeline_file(folder: &Path, bootstrap: &str) -> Result<PathBuf, Exit> {
    let path = folder.join("pipeline.yaml");
    let text = include_str!("pipeline.yaml")
        .replace("BOOTSTRAP", bootstrap)
        .replace("HIGH_VALUE_CENTS", &HIGH_VALUE_CENTS.to_string());
    std::fs::write(&path, text).map_err(|e| Exit::failed(format!("{}: {e}", path.display())))?;
    Ok(path)
}

async fn demo(args: &Args) -> Result<(), Exit> {
    let cluster = MockCluster::start(1).map_err(Exit::failed)?;
    cluster.create_topic(TOPIC, PARTITIONS).map_err(Exit::failed)?;
    // Nobody else will join.
    cluster.set_group_rebalance_delay(Duration::ZERO);
    let bootstrap = cluster.bootstrap_servers();
    let file = pipeline_file(&args.folder, &bootstrap)?;
    let pipeline = Pipeline::prepare_without_topic_ids(gristmill_pipeline::check(&file)?).await?;
    let metrics = pipeline.metrics();
    let (stop, stopped) = watch::channel(Stop::No);
    let started = Instant::now();
    let running = tokio::spawn(pipeline.run(stopped));
    let bar = progress(args.orders);
    let producing =
        tokio::spawn(produce::produce(bootstrap, Orders::new(args.seed), args.orders, metrics.clone()));
    let arrived = all_arrive(&metrics, args.orders, &bar, &running).await;
    bar.finish_and_clear();
    let _ = stop.send(if arrived.is_ok() { Stop::Finish } else { Stop::Drop });
    let ended = running.await.map_err(Exit::failed)?;
    let ended = ended?;
    arrived?;
    if ended == Ended::Dropped {
        return Err(Exit::dropped("the last checkpoint did not finish in time"));
    }
    let tally = producing.await.map_err(Exit::failed)??;
    let elapsed = started.elapsed();
    result::show(&args.folder, &tally, &metrics, elapsed)
}

fn progress(orders: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} orders, {per_sec}, {eta} to go")
        .expect("the template is right");
    ProgressBar::new(orders).with_style(style)
}

/// Waits until the pipeline has read every order.
async fn all_arrive(
    metrics: &Arc<Metrics>,
    orders: u64,
    bar: &ProgressBar,
    running: &tokio::task::JoinHandle<Result<Ended, gristmill_pipeline::Error>>,
) -> Result<(), Exit> {
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let n = metrics.records_in.get();
        bar.set_position(n);
        if n >= orders || running.is_finished() {
            return Ok(());
        }
        if n > last {
            (last, since) = (n, Instant::now());
        } else if since.elapsed() > STALLED {
            return Err(Exit::difference(format!(
                "only {n} of {orders} orders arrived and nothing came for {STALLED:?}: the embedded cluster has lost some"
            )));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
