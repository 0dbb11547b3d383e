//! What the watcher of the devices reports. A value that a device does not say is left out; one that
//! it does not say any more becomes "not a number", which no threshold of an alarm takes for good.

use std::time::{SystemTime, UNIX_EPOCH};

use forebay_protocol::DeviceHealth;
use metrics::{Counter, Gauge};

use super::handles::{of_rung, plain};
use super::names::{self, Metric};
use super::recorder::Metrics;
use crate::health::slowdown_left_c;

/// The metrics of one watched GPU.
pub struct DeviceMetrics {
    rung: String,
    temperature: Optional,
    slowdown_margin: Optional,
    power: Optional,
    power_limit: Optional,
    memory_used: Optional,
    memory_total: Optional,
    utilisation: Optional,
    clocks: Optional,
    recovery_action: Optional,
    xids: Counter,
    nonsense: Counter,
    /// Xids of the monitor that runs now which are counted already.
    xids_seen: u64,
}

/// A gauge that exists once its value has been known.
struct Optional {
    metric: &'static Metric,
    gauge: Option<Gauge>,
}

impl Optional {
    fn new(metric: &'static Metric) -> Self {
        Self { metric, gauge: None }
    }

    fn set(&mut self, rung: &str, value: Option<f64>) {
        match (value, &self.gauge) {
            (Some(value), _) => {
                self.gauge.get_or_insert_with(|| of_rung(self.metric, rung)).set(value);
            }
            (None, Some(gauge)) => gauge.set(f64::NAN),
            (None, None) => {}
        }
    }
}

impl DeviceMetrics {
    /// What the device says of itself now. `nonsense` of its values cannot be and were left aside.
    pub fn report(&mut self, health: &DeviceHealth, nonsense: usize) {
        let rung = &self.rung;
        let set = |gauge: &mut Optional, value: Option<f64>| gauge.set(rung, value);
        set(&mut self.temperature, health.temperature_c.map(f64::from));
        set(&mut self.slowdown_margin, slowdown_left_c(health).map(|left| left as f64));
        let watts = |milliwatts| f64::from(milliwatts) / 1_000.0;
        set(&mut self.power, health.power_mw.map(watts));
        set(&mut self.power_limit, health.power_limit_mw.map(watts));
        set(&mut self.memory_used, health.memory_used_bytes.map(|bytes| bytes as f64));
        set(&mut self.memory_total, health.memory_total_bytes.map(|bytes| bytes as f64));
        set(
            &mut self.utilisation,
            health.utilisation_percent.map(|share| f64::from(share) / 100.0),
        );
        set(&mut self.clocks, health.clocks_event_reasons.map(|bits| bits as f64));
        set(&mut self.recovery_action, health.recovery_action.map(f64::from));
        let seen = health.xids.as_ref().map_or(0, |xids| xids.seen);
        let before = std::mem::replace(&mut self.xids_seen, seen);
        // A monitor that has been restarted begins again at 0.
        self.xids.increment(if seen < before { seen } else { seen - before });
        self.nonsense.increment(nonsense as u64);
    }
}

/// The metrics of the process that watches the devices.
pub struct MonitorMetrics {
    restarts: Counter,
    stuck: Gauge,
    last_report: Gauge,
}

impl MonitorMetrics {
    /// The process ended or was given up, and is to be replaced.
    pub fn restarted(&self) {
        self.restarts.increment(1);
    }

    /// Whether a killed process has not ended.
    pub fn stuck(&self, stuck: bool) {
        self.stuck.set(f64::from(u8::from(stuck)));
    }

    /// A report was heard now.
    pub fn reported(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_report.set(now.as_secs_f64());
    }
}

impl Metrics {
    /// The metrics of one watched GPU, named by its rung.
    #[must_use]
    pub fn device(&self, rung: &str) -> DeviceMetrics {
        DeviceMetrics {
            rung: rung.to_owned(),
            temperature: Optional::new(&names::DEVICE_TEMPERATURE),
            slowdown_margin: Optional::new(&names::DEVICE_SLOWDOWN_MARGIN),
            power: Optional::new(&names::DEVICE_POWER),
            power_limit: Optional::new(&names::DEVICE_POWER_LIMIT),
            memory_used: Optional::new(&names::DEVICE_MEMORY_USED),
            memory_total: Optional::new(&names::DEVICE_MEMORY_TOTAL),
            utilisation: Optional::new(&names::DEVICE_UTILISATION),
            clocks: Optional::new(&names::DEVICE_CLOCKS_EVENT_REASONS),
            recovery_action: Optional::new(&names::DEVICE_RECOVERY_ACTION),
            xids: of_rung(&names::DEVICE_XIDS, rung),
            nonsense: of_rung(&names::DEVICE_NONSENSE, rung),
            xids_seen: 0,
        }
    }

    /// The metrics of the process that watches the devices.
    #[must_use]
    pub fn monitor(&self) -> MonitorMetrics {
        MonitorMetrics {
            restarts: plain(&names::MONITOR_RESTARTS),
            stuck: plain(&names::MONITOR_STUCK),
            last_report: plain(&names::MONITOR_LAST_REPORT),
        }
    }
}

#[cfg(test)]
mod tests {
    use forebay_protocol::Xids;

    use super::super::prometheus::{PrometheusHandle, builder};
    use super::*;

    #[test]
    fn the_unknown_is_left_out_and_xids_add_up_over_restarts() {
        let recorder = builder().expect("the buckets are valid").build_recorder();
        let handle = PrometheusHandle::of(&recorder);
        let seen = |seen| Some(Xids { seen, recent: Vec::new() });
        metrics::with_local_recorder(&recorder, || {
            let mut device = Metrics::new().device("cuda:0");
            let mut health = DeviceHealth { power_mw: Some(1_500), ..DeviceHealth::default() };
            for count in [0, 3, 4, 2] {
                health.xids = seen(count);
                device.report(&health, 1);
            }
            health.power_mw = None;
            device.report(&health, 0);
        });
        let text = handle.render();
        assert!(text.contains("forebay_device_power_watts{rung=\"cuda:0\"} NaN"), "{text}");
        assert!(text.contains("forebay_device_xids_total{rung=\"cuda:0\"} 6"), "{text}");
        assert!(text.contains("forebay_device_nonsense_total{rung=\"cuda:0\"} 4"), "{text}");
        assert!(!text.contains("forebay_device_temperature_celsius"), "{text}");
    }
}
