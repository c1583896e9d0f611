//! Prometheus metrics: what each route answers and how long it takes, what is in flight, whether the store can write.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
    },
    registry::Registry,
};
use store::Store;

/// Bounds of the duration histogram, in seconds. Long polls end up in the last.
const SECONDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 35.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    method: &'static str,
    /// The path's template, so that there are as many as routes, whatever is asked.
    route: &'static str,
    /// `2xx`, `4xx`.
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    method: &'static str,
    route: &'static str,
}

/// The metrics of one server.
pub struct Metrics {
    /// What `/metrics` shows. Other layers register theirs at start.
    pub registry: Mutex<Registry>,
    answered: Family<Answered, Counter>,
    seconds: Family<Asked, Histogram>,
    in_flight: Gauge,
    connections: Gauge,
}

/// Counts one thing for as long as it lives.
pub(crate) struct Counted(Gauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        let mut registry = Registry::with_prefix("hearth");
        let answered = Family::default();
        let seconds = Family::new_with_constructor((|| Histogram::new(SECONDS)) as fn() -> Histogram);
        let (in_flight, connections) = (Gauge::default(), Gauge::default());
        registry.register("http_requests", "Requests answered, by route and class of status", answered.clone());
        registry.register("http_request_seconds", "Time from a request's head to its answer's head", seconds.clone());
        registry.register("http_requests_in_flight", "Requests not yet answered", in_flight.clone());
        registry.register("http_connections", "Open connections", connections.clone());
        registry.register_collector(Box::new(Process { store }));
        Self { registry: Mutex::new(registry), answered, seconds, in_flight, connections }
    }

    pub(crate) fn request(&self) -> Counted {
        self.in_flight.inc();
        Counted(self.in_flight.clone())
    }

    pub(crate) fn connection(&self) -> Counted {
        self.connections.inc();
        Counted(self.connections.clone())
    }

    pub(crate) fn answered(&self, method: &http::Method, route: &'static str, status: http::StatusCode, took: Duration) {
        let method = match method.as_str() {
            "GET" => "GET",
            "PUT" => "PUT",
            "POST" => "POST",
            "DELETE" => "DELETE",
            "OPTIONS" => "OPTIONS",
            "HEAD" => "HEAD",
            _ => "other",
        };
        let status = match status.as_u16() / 100 {
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            5 => "5xx",
            _ => "other",
        };
        self.answered.get_or_create(&Answered { method, route, status }).inc();
        self.seconds.get_or_create(&Asked { method, route }).observe(took.as_secs_f64());
    }

    /// All metrics in the OpenMetrics text format.
    ///
    /// # Errors
    /// Where a metric cannot be written as text.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry.lock())?;
        Ok(out)
    }
}

/// What is read from the system when asked.
struct Process {
    store: Arc<Store>,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Process")
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let mut gauge = |name: &str, help: &str, value: u64| {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        let failed = u64::from(self.store.failure().is_some());
        gauge("store_failed", "1 where the data folder cannot be written, so that writes are refused", failed)?;
        gauge("store_sequence", "The number of the last commit", self.store.snapshot().seq().0)?;
        if let Some(bytes) = resident_bytes() {
            gauge("process_resident_bytes", "Memory of the process", bytes)?;
        }
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            gauge("process_open_fds", "Open files and connections of the process", open.count() as u64)?;
        }
        Ok(())
    }
}

/// The process's resident memory, where the system tells it (Linux).
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}
