//! What the connections notice, against a real socket.

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::connection::drive;
use super::*;
use crate::targets::Address;

#[tokio::test]
async fn a_second_answer_is_noted_with_the_request_that_it_came_after() {
    let (client, mut server) = UnixStream::pair().unwrap();
    let strays = Strays::default();
    let mut connection = drive(TokioIo::new(client), false, Arc::clone(&strays)).await.unwrap();
    connection.last.store(17, Ordering::Relaxed);
    let request = Request::builder().uri("/x").header(HOST, "x").body(Full::default()).unwrap();
    let answered = tokio::spawn(async move {
        let response = connection.sender.try_send(request).await.unwrap();
        response.into_body().collect().await.unwrap();
        connection.sender.ready().await.ok();
        connection
    });
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab";
    let mut asked = [0; 1024];
    assert!(server.read(&mut asked).await.unwrap() > 0);
    server.write_all(answer).await.unwrap();
    let _connection = answered.await.unwrap();
    server.write_all(answer).await.unwrap();
    // The client ends the connection because of it.
    assert_eq!(server.read(&mut asked).await.unwrap_or(0), 0);
    let noted = async {
        loop {
            if let Some(stray) = lock(&strays).pop_front() {
                return stray;
            }
            tokio::task::yield_now().await;
        }
    };
    let stray = tokio::time::timeout(ASK_TIME_MAX, noted).await.expect("a stray");
    assert_eq!(stray.request, Some(17));
}

#[tokio::test]
async fn an_answer_that_comes_before_the_request_was_read_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let serving = tokio::spawn(async move {
        let mut streams = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut start = [0; 64];
            if stream.read(&mut start).await.unwrap_or(0) > 0 {
                let head = b"HTTP/1.1 200 OK\r\ncontent-length: 24\r\n\r\n";
                stream.write_all(head).await.unwrap();
                stream.write_all(b"{\"embeddings\": [[1, 0]]}").await.unwrap();
            }
            // The rest of the request is never read.
            streams.push(stream);
        }
    });
    let address = format!("unix:{}", path.display());
    let Ok(Address::Server { dialect, place }) = address.parse() else { panic!("{address}") };
    let server = Server {
        dialect,
        place,
        admin: None,
        key: None,
        model: None,
        authorities: None,
        pid: None,
        connections_max: 1,
    };
    let target = HttpTarget::connect(server).await.unwrap();
    let call = Call {
        number: 0,
        // More than a socket takes.
        texts: vec!["x".repeat(16 << 20)],
        priority: forebay::Priority::Bulk,
        deadline: None,
        connection_wait: ASK_TIME_MAX,
        wait: Duration::from_secs(20),
    };
    let sent = target.send(call).await;
    assert_eq!(sent.answer, Answer::Rows(vec![vec![1.0, 0.0]]));
    assert!(lock(&target.inner.pool.idle).is_empty(), "its connection cannot be used again");
    serving.abort();
}
