//! What servers speak: bodies of requests and of answers. Pure.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use http::HeaderMap;
use http::response::Parts;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Call, Look, Reading, WorkerLook, grpc};

/// What a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Forebay's own: with priorities, deadlines and a status.
    Native,
    /// OpenAI's embeddings.
    OpenAi,
    /// That of text-embeddings-inference.
    Tei,
    /// The same server's gRPC.
    Grpc,
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::OpenAi => "openai",
            Self::Tei => "tei",
            Self::Grpc => "grpc",
        })
    }
}

impl FromStr for Dialect {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "native" => Ok(Self::Native),
            "openai" => Ok(Self::OpenAi),
            "tei" => Ok(Self::Tei),
            "grpc" => Ok(Self::Grpc),
            _ => Err(format!("`{text}` is no dialect; there are native, openai, tei and grpc")),
        }
    }
}

/// A vector as numbers or as base64 of little-endian F32.
#[derive(Deserialize)]
#[serde(untagged)]
enum Row {
    Numbers(Vec<f32>),
    Base64(String),
}

impl Row {
    fn values(self) -> Result<Vec<f32>, String> {
        match self {
            Self::Numbers(values) => Ok(values),
            Self::Base64(text) => {
                let bytes = base64_simd::STANDARD.decode_to_vec(text);
                let bytes = bytes.map_err(|error| format!("a vector in base64: {error}"))?;
                let (values, rest) = bytes.as_chunks::<4>();
                let whole = rest
                    .is_empty()
                    .then(|| values.iter().map(|v| f32::from_le_bytes(*v)).collect());
                whole.ok_or_else(|| format!("a vector of {} bytes", bytes.len()))
            }
        }
    }
}

#[derive(Deserialize)]
struct NativeAnswer {
    embeddings: Vec<Row>,
}

#[derive(Deserialize)]
struct OpenAiAnswer {
    data: Vec<OpenAiRow>,
}

#[derive(Deserialize)]
struct OpenAiRow {
    index: usize,
    embedding: Row,
}

impl Dialect {
    /// Whether requests say how long they may take.
    pub(super) fn tells_deadlines(self) -> bool {
        matches!(self, Self::Native | Self::Grpc)
    }

    /// The route that takes so many texts.
    pub(super) fn path(self, texts: usize) -> &'static str {
        match self {
            Self::Native => "/api/v1/embed",
            Self::OpenAi => "/v1/embeddings",
            Self::Tei => "/embed",
            Self::Grpc => grpc::path(texts),
        }
    }

    /// The body of a request of whose deadline so much is left.
    pub(super) fn body(
        self,
        call: &Call,
        deadline: Option<Duration>,
        model: Option<&str>,
    ) -> Vec<u8> {
        let body = match self {
            Self::Native => {
                let mut body = json!({"texts": call.texts, "priority": call.priority.as_str(),
                                      "encoding": "base64"});
                if let Some(deadline) = deadline {
                    body["deadline_ms"] = Value::from(deadline.as_millis().max(1) as u64);
                }
                body
            }
            Self::OpenAi => json!({"input": call.texts, "encoding_format": "base64",
                                   "model": model.unwrap_or("")}),
            Self::Tei => json!({"inputs": call.texts, "truncate": true}),
            Self::Grpc => return grpc::body(call),
        };
        let mut body = body;
        if self == Self::OpenAi && model.is_none() {
            body.as_object_mut().map(|body| body.remove("model"));
        }
        body.to_string().into_bytes()
    }

    /// What an answer means, with what stands behind its body, if anything.
    pub(super) fn answer(self, head: &Parts, trailers: Option<&HeaderMap>, body: &[u8]) -> Answer {
        let status = head.status.as_u16();
        if self == Self::Grpc
            && status == 200
            && let Err(answer) = grpc::status(&head.headers, trailers)
        {
            return answer;
        }
        match status {
            200 => match self.rows(body) {
                Ok(rows) => Answer::Rows(rows),
                Err(why) => Answer::Unreadable(why),
            },
            // Too much is under way, or nothing serves: both are told before any work is done.
            429 => Answer::Refused(error_name(status, body)),
            _ => Answer::Error(error_name(status, body)),
        }
    }

    /// The vectors of a body; what is wrong with one that holds none. A value that is no number, such
    /// as the `null` that JSON has for a NaN, makes it one.
    fn rows(self, body: &[u8]) -> Result<Vec<Vec<f32>>, String> {
        let wrong = |error: serde_json::Error| format!("{} bytes: {error}", body.len());
        match self {
            Self::Native => {
                let answer: NativeAnswer = serde_json::from_slice(body).map_err(wrong)?;
                answer.embeddings.into_iter().map(Row::values).collect()
            }
            Self::OpenAi => {
                let mut answer: OpenAiAnswer = serde_json::from_slice(body).map_err(wrong)?;
                answer.data.sort_by_key(|row| row.index);
                answer.data.into_iter().map(|row| row.embedding.values()).collect()
            }
            Self::Tei => serde_json::from_slice(body).map_err(wrong),
            Self::Grpc => grpc::rows(body),
        }
    }
}

/// The name that a server gives a problem, or its status.
fn error_name(status: u16, body: &[u8]) -> Cow<'static, str> {
    let named = serde_json::from_slice::<Value>(body).ok().and_then(|body| {
        let code = body["error"]["code"].as_str().or(body["error_type"].as_str())?;
        let plain = code.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        (plain && !code.is_empty() && code.len() <= 40).then(|| code.to_lowercase())
    });
    Cow::Owned(named.unwrap_or_else(|| format!("http_{status}")))
}

/// What `/api/v1/status` says.
pub(super) fn look(body: &[u8]) -> Option<Look> {
    let status: Value = serde_json::from_slice(body).ok()?;
    let workers = status["workers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let workers = workers.iter().map(|worker| {
        Some(WorkerLook {
            device: worker["device"].as_str()?.to_owned(),
            state: worker["state"].as_str()?.to_owned(),
            pid: worker["pid"].as_u64().and_then(|pid| pid.try_into().ok()),
            incarnation: worker["incarnation"].as_u64().unwrap_or(0),
        })
    });
    let queues = status["queues"].as_array().map(Vec::as_slice).unwrap_or_default();
    Some(Look {
        level: status["level"].as_str()?.to_owned(),
        workers: workers.collect::<Option<_>>()?,
        under_way: queues.iter().filter_map(|queue| queue["under_way"].as_u64()).sum(),
    })
}

/// What devices show, from metrics in Prometheus' text format.
pub(super) fn readings(text: &str) -> Vec<Reading> {
    const NAMES: [&str; 6] = [
        "forebay_device_temperature_celsius",
        "forebay_device_power_watts",
        "forebay_device_memory_used_bytes",
        "forebay_device_utilisation_ratio",
        "forebay_device_slowdown_margin_celsius",
        "forebay_device_clocks_event_reasons",
    ];
    let reading = |line: &str| {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{')?;
        let (_, device) = labels.split_once("rung=\"")?;
        let value: f64 = value.parse().ok().filter(|value: &f64| value.is_finite())?;
        let known = NAMES.contains(&name);
        let device = device.split('"').next()?.to_owned();
        known.then(|| Reading { name: name.to_owned(), device, value })
    };
    text.lines().filter_map(reading).collect()
}

/// A counter, summed over its labels, from metrics in Prometheus' text format; 0 if it is not there.
pub(super) fn counted(text: &str, name: &str) -> u64 {
    let value = |line: &str| {
        let (series, value) = line.rsplit_once(' ')?;
        let is_it = series.split('{').next() == Some(name);
        value.parse::<u64>().ok().filter(|_| is_it)
    };
    text.lines().filter_map(value).sum()
}

#[cfg(test)]
mod tests {
    use forebay::Priority;

    use super::*;

    fn answer(dialect: Dialect, status: u16, body: &[u8]) -> Answer {
        let head = http::Response::builder().status(status).body(()).unwrap().into_parts().0;
        dialect.answer(&head, None, body)
    }

    #[test]
    fn answers_of_each_dialect_are_read() {
        let rows = Answer::Rows(vec![vec![1.0, -2.0], vec![0.5, 0.25]]);
        let base64 = |values: [f32; 2]| {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            base64_simd::STANDARD.encode_to_string(bytes)
        };
        let (one, two) = (base64([1.0, -2.0]), base64([0.5, 0.25]));
        let native = json!({"embeddings": [one, [0.5, 0.25]], "level": "cpu"}).to_string();
        let openai = json!({"data": [{"index": 1, "embedding": two},
                                     {"index": 0, "embedding": one}]});
        assert_eq!(answer(Dialect::Native, 200, native.as_bytes()), rows);
        assert_eq!(answer(Dialect::OpenAi, 200, openai.to_string().as_bytes()), rows);
        assert_eq!(answer(Dialect::Tei, 200, b"[[1,-2],[0.5,0.25]]"), rows);
        for dialect in [Dialect::Native, Dialect::OpenAi, Dialect::Tei] {
            let nulls = json!({"embeddings": [[1.0, null]], "data": [{"index": 0,
                               "embedding": [1.0, null]}]});
            let nulls = if dialect == Dialect::Tei { json!([[1.0, null]]) } else { nulls };
            for body in ["{".to_owned(), nulls.to_string(), native[..20].to_owned()] {
                let found = answer(dialect, 200, body.as_bytes());
                assert!(matches!(found, Answer::Unreadable(_)), "{dialect} {body}: {found:?}");
            }
        }
    }

    #[test]
    fn problems_have_the_servers_name_for_them() {
        let native = br#"{"error": {"code": "overloaded", "message": "x"}}"#;
        assert_eq!(answer(Dialect::Native, 429, native), Answer::Refused("overloaded".into()));
        let tei = br#"{"error": "x", "error_type": "Timeout"}"#;
        assert_eq!(answer(Dialect::Tei, 504, tei), Answer::Error("timeout".into()));
        assert_eq!(answer(Dialect::Tei, 500, b"no, really"), Answer::Error("http_500".into()));
        let comma = br#"{"error": {"code": "a,b"}}"#;
        assert_eq!(answer(Dialect::OpenAi, 503, comma), Answer::Error("http_503".into()));
    }

    #[test]
    fn requests_have_what_their_dialect_knows() {
        let call = Call {
            number: 0,
            texts: vec!["a".to_owned()],
            priority: Priority::Bulk,
            deadline: None,
            connection_wait: Duration::from_secs(1),
            wait: Duration::from_secs(1),
        };
        let body = |dialect: Dialect| -> Value {
            serde_json::from_slice(&dialect.body(&call, Some(Duration::from_millis(70)), None))
                .unwrap()
        };
        let native = json!({"texts": ["a"], "priority": "bulk", "deadline_ms": 70,
                            "encoding": "base64"});
        assert_eq!(body(Dialect::Native), native);
        assert_eq!(body(Dialect::OpenAi), json!({"input": ["a"], "encoding_format": "base64"}));
        assert_eq!(body(Dialect::Tei), json!({"inputs": ["a"], "truncate": true}));
    }

    #[test]
    fn a_status_and_metrics_are_read() {
        let status = json!({"level": "gpu(1)", "workers": [{"device": "cuda:0", "state": "serving",
            "pid": 7, "incarnation": 2}], "queues": [{"under_way": 2}, {"under_way": 3}]});
        let look = look(status.to_string().as_bytes()).unwrap();
        assert_eq!((look.level.as_str(), look.under_way), ("gpu(1)", 5));
        assert!(look.workers[0].serves() && look.workers[0].pid == Some(7));
        let readings = readings(
            "# HELP x\nforebay_device_power_watts{rung=\"cuda:0\"} 310.5\n\
             forebay_device_power_limit_watts{rung=\"cuda:0\"} 700\nforebay_tokens_total 3\n",
        );
        let text =
            "a_total{x=\"1\"} 2\na_total{x=\"2\"} 3\na_total_more 7\n# HELP a_total 9\nb 4\n";
        assert_eq!((counted(text, "a_total"), counted(text, "b"), counted(text, "c")), (5, 4, 0));
        assert_eq!(readings.len(), 1);
        assert_eq!((readings[0].device.as_str(), readings[0].value), ("cuda:0", 310.5));
    }
}
