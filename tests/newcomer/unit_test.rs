//! A handler, and its author's unit test: what does it do when every pod is down?

use axum::{extract::State, http::StatusCode};
use tower_headless::http::{Client, Error};

async fn greeting(State(pods): State<Client>) -> (StatusCode, String) {
    match greet(&pods).await {
        Ok(text) => (StatusCode::OK, text),
        Err(error) if error.is_unexecuted() => {
            let text = format!("try again later: {error}");
            (StatusCode::SERVICE_UNAVAILABLE, text)
        }
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()),
    }
}

async fn greet(pods: &Client) -> Result<String, Error> {
    pods.get("/greeting")
        .await?
        .error_for_status()?
        .text()
        .await
}

#[cfg(test)]
mod tests {
    use http::Response;
    use tower_headless::{Endpoint, Error as BalanceError};

    use super::*;

    #[tokio::test]
    async fn without_pods_the_caller_is_told_to_retry_later() {
        let down = Client::from_fn(async |_| {
            let last = Endpoint::new(([10, 244, 1, 7], 80).into());
            let error = BalanceError::fake_unreachable(3, last, "connection refused");
            Err::<Response<&str>, _>(Error::fake_balance(error))
        });
        let (status, text) = greeting(State(down)).await;
        assert_eq!(status, 503);
        assert!(text.ends_with("connection refused"), "{text}");
    }

    #[tokio::test]
    async fn the_pod_s_answer_is_passed_on() {
        let well = Client::from_fn(async |_| Ok(Response::new("hello")));
        assert_eq!(
            greeting(State(well)).await,
            (StatusCode::OK, "hello".into())
        );
    }
}
