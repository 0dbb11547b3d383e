//! The id under which a request is found in the logs: the client's own if it is fit to be written
//! down, else one made here.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header, in requests and in answers.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const BYTES_MAX: usize = 128;

/// The id of a request, among its extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The id in the headers, or a new one.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(X_REQUEST_ID).filter(|id| is_fit(id.as_bytes()));
        Self(given.cloned().unwrap_or_else(made))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only ASCII is taken or made.
        self.0.to_str().unwrap_or_default()
    }

    /// As a header of the answer.
    pub(crate) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

fn is_fit(id: &[u8]) -> bool {
    let fit = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte);
    (1..=BYTES_MAX).contains(&id.len()) && id.iter().all(fit)
}

fn made() -> HeaderValue {
    let id = format!("{:032x}", rand::random::<u128>());
    HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fit_ids_are_kept_and_others_replaced() {
        let of = |id: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(X_REQUEST_ID, id.parse().expect("a header"));
            RequestId::of(&headers).as_str().to_owned()
        };
        assert_eq!(of("req-1/a:b_c.d"), "req-1/a:b_c.d");
        for unfit in ["", "a b", "a\"b", &"a".repeat(129)] {
            assert_eq!(of(unfit).len(), 32, "{unfit}");
        }
        assert_ne!(RequestId::of(&HeaderMap::new()), RequestId::of(&HeaderMap::new()));
    }
}
