//! A call in the metrics: it is over when its status is told, which for most stands behind the
//! answer.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use metrics::Gauge;
use tonic::{Code, Status};

use crate::metrics::UnderWay;
use crate::trace::RequestTrace;

/// The answer to a call, which tells its end to `under_way`.
pub(crate) fn observed(
    response: Response,
    under_way: UnderWay,
    started: Instant,
    trace: Option<RequestTrace>,
) -> Response {
    if let Some(code) = code(response.headers()) {
        if let Some(trace) = trace {
            trace.called(code);
        }
        under_way.called(code, started.elapsed(), 0);
        return response;
    }
    let under_way = Some(under_way);
    response.map(|inner| Body::new(Observed { inner, under_way, started, bytes: 0, trace }))
}

fn code(headers: &HeaderMap) -> Option<Code> {
    headers.get(Status::GRPC_STATUS).map(|value| Code::from_bytes(value.as_bytes()))
}

struct Observed {
    inner: Body,
    /// Until the status was told; dropped without, the client has left.
    under_way: Option<UnderWay>,
    started: Instant,
    bytes: u64,
    trace: Option<RequestTrace>,
}

impl HttpBody for Observed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        if let Some(Ok(frame)) = &frame {
            self.bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
            if let Some(code) = frame.trailers_ref().and_then(code)
                && let Some(under_way) = self.under_way.take()
            {
                under_way.called(code, self.started.elapsed(), self.bytes);
                if let Some(trace) = self.trace.take() {
                    trace.called(code);
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The part of one stream in the number of texts of streams that are under way.
pub(crate) struct StreamTexts {
    gauge: Gauge,
    count: usize,
}

impl StreamTexts {
    pub(crate) fn new(gauge: Gauge) -> Self {
        Self { gauge, count: 0 }
    }

    /// So many of this stream are now.
    pub(super) fn are(&mut self, count: usize) {
        if count != self.count {
            self.gauge.increment(count as f64 - self.count as f64);
            self.count = count;
        }
    }
}

impl Drop for StreamTexts {
    fn drop(&mut self) {
        self.are(0);
    }
}
