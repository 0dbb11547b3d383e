//! What a request costs: the price of the machine and of its energy, over what it is measured to
//! compute. Nothing is guessed: without a price, a measurement or a reading there is no figure.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use forebay::config::{CostConfig, Device};
use forebay::health::HealthReport;
use forebay::{Level, Rates};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::openai::json;
use crate::api::state::Api;

/// A reading that is older says nothing of the power now.
const READING_AGE_MAX: Duration = Duration::from_secs(30);

/// What a request costs.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct CostPerRequest {
    /// `capacity`: as if the workers that serve were never idle. An idle machine costs as much.
    basis: &'static str,
    /// Currency of the prices, as configured.
    currency: String,
    price_per_hour: f64,
    price_per_kwh: f64,
    /// Texts of the mean length of those that came lately; null before any measurement.
    texts_per_s: Option<f64>,
    /// Null before any measurement.
    tokens_per_s: Option<f64>,
    /// What the GPUs that serve draw; null if it is not known.
    power_w: Option<f64>,
    /// Energy of one text; null if power or throughput is not known.
    energy_j_per_text: Option<f64>,
    /// Machine, and energy where power is known, for one text; null without a price or a
    /// measurement.
    cost_per_text: Option<f64>,
    /// The same for a million tokens.
    cost_per_million_tokens: Option<f64>,
    /// Whether `cost_per_text` has energy in it.
    includes_energy: bool,
}

/// What a request costs, from configured prices and measured throughput.
#[utoipa::path(get, path = "/api/v1/cost-per-request", tag = "Forebay",
    responses((status = 200, description = "The figures that are known", body = CostPerRequest)))]
pub(crate) async fn cost_per_request(State(api): State<Api>) -> Response {
    let runtime = api.runtime();
    let power = power_w(runtime.level(), runtime.device_report().as_ref());
    json(&cost(&api.service().config().cost, &runtime.rates(), power))
}

/// Watts that the GPUs draw together: known only while GPUs serve and each says it of itself.
fn power_w(level: Level, report: Option<&HealthReport>) -> Option<f64> {
    let report = report.filter(|report| report.at.elapsed() <= READING_AGE_MAX)?;
    let gpus = report.devices.iter().filter(|(device, ..)| matches!(device, Device::Cuda(_)));
    let readings: Option<Vec<u32>> = gpus.map(|(_, health, _)| health.power_mw).collect();
    let readings = readings.filter(|readings| !readings.is_empty())?;
    let is_gpu = matches!(level, Level::Gpu(_));
    is_gpu.then(|| readings.into_iter().map(|power_mw| f64::from(power_mw) / 1000.0).sum())
}

fn cost(config: &CostConfig, rates: &Rates, power_w: Option<f64>) -> CostPerRequest {
    let known = |rate: f64| (rate.is_finite() && rate > 0.0).then_some(rate);
    let (texts_per_s, tokens_per_s) = (known(rates.texts_per_s), known(rates.tokens_per_s));
    let watts_price = |watts: f64| watts / 1000.0 * config.price_per_kwh;
    let priced_power = power_w.filter(|_| config.price_per_kwh > 0.0);
    let per_hour = config.price_per_hour + priced_power.map_or(0.0, watts_price);
    let per_second = (per_hour > 0.0).then_some(per_hour / 3600.0);
    let per = |rate: Option<f64>| Some(per_second? / rate?);
    CostPerRequest {
        basis: "capacity",
        currency: config.currency.clone(),
        price_per_hour: config.price_per_hour,
        price_per_kwh: config.price_per_kwh,
        texts_per_s,
        tokens_per_s,
        power_w,
        energy_j_per_text: power_w.zip(texts_per_s).map(|(watts, rate)| watts / rate),
        cost_per_text: per(texts_per_s),
        cost_per_million_tokens: per(tokens_per_s).map(|cost| cost * 1e6),
        includes_energy: priced_power.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(texts_per_s: f64, tokens_per_s: f64) -> Rates {
        Rates { tokens_per_s, texts_per_s, under_way: [0; 3], limits: [0; 3] }
    }

    fn prices(price_per_hour: f64, price_per_kwh: f64) -> CostConfig {
        CostConfig { price_per_hour, price_per_kwh, ..CostConfig::default() }
    }

    #[test]
    fn machine_and_energy_are_shared_by_what_is_computed() {
        let cost = cost(&prices(3.6, 0.5), &rates(1000.0, 20_000.0), Some(200.0));
        // 3.6 an hour is 0.001 a second; 200 W at 0.5 a kWh are 0.1 an hour.
        let expected = (3.6 + 0.1) / 3600.0 / 1000.0;
        assert!((cost.cost_per_text.expect("known") - expected).abs() < 1e-15);
        let tokens = cost.cost_per_million_tokens.expect("known");
        assert!((tokens - (3.6 + 0.1) / 3600.0 / 20_000.0 * 1e6).abs() < 1e-12);
        assert_eq!((cost.energy_j_per_text, cost.includes_energy), (Some(0.2), true));
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let unmeasured = cost(&prices(3.6, 0.5), &rates(0.0, f64::NAN), None);
        assert_eq!((unmeasured.texts_per_s, unmeasured.cost_per_text), (None, None));
        assert_eq!(unmeasured.cost_per_million_tokens, None);
        let unpriced = cost(&prices(0.0, 0.0), &rates(10.0, 100.0), Some(50.0));
        assert_eq!((unpriced.cost_per_text, unpriced.includes_energy), (None, false));
        assert_eq!(unpriced.energy_j_per_text, Some(5.0));
        let without_power = cost(&prices(36.0, 0.5), &rates(10.0, 100.0), None);
        assert_eq!(without_power.cost_per_text, Some(0.001));
        assert!(!without_power.includes_energy && without_power.energy_j_per_text.is_none());
    }
}
