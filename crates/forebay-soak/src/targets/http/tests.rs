//! What the connections notice, against a real socket.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

#[tokio::test]
async fn a_second_answer_is_noted_with_the_request_that_it_came_after() {
    let (client, mut server) = UnixStream::pair().unwrap();
    let strays = Strays::default();
    let mut connection = serve(TokioIo::new(client), Arc::clone(&strays)).await.unwrap();
    connection.last.store(17, Ordering::Relaxed);
    let request = Request::builder().uri("/x").header(HOST, "x").body(Full::default()).unwrap();
    let answered = tokio::spawn(async move {
        let response = connection.sender.send_request(request).await.unwrap();
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
