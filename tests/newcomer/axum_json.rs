//! A shop's front end: JSON in, JSON out, with the carts in the pods of a headless Service.

use axum::extract::{Path, State};
use axum::{Json, Router, http::StatusCode, routing::get};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tower_headless::http::{Client, Error, RequestBuilder};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Item {
    name: String,
    count: u32,
}

type Answer<T> = Result<Json<T>, (StatusCode, String)>;

#[derive(Clone)]
struct Shop {
    carts: Client,
}

async fn show(State(shop): State<Shop>, Path(user): Path<String>) -> Answer<Vec<Item>> {
    answer(shop.carts.get(format!("/{user}"))).await
}

async fn add(shop: State<Shop>, Path(user): Path<String>, item: Json<Item>) -> Answer<u32> {
    answer(shop.carts.post(format!("/{user}")).json(&*item)).await
}

async fn answer<T: DeserializeOwned>(request: RequestBuilder) -> Answer<T> {
    let answer = async { request.await?.error_for_status()?.json().await };
    answer.await.map(Json).map_err(|error: Error| {
        let status = error.status().unwrap_or(StatusCode::BAD_GATEWAY);
        (status, error.to_string())
    })
}

fn app(carts: Client) -> Router {
    let routes = Router::new().route("/carts/{user}", get(show).post(add));
    routes.with_state(Shop { carts })
}

async fn serve(listener: tokio::net::TcpListener, carts: Client) -> std::io::Result<()> {
    axum::serve(listener, app(carts)).await
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::response::{IntoResponse, Response};
    use tower::ServiceExt;
    use tower_headless::{BoxError, test_util::Cluster};

    use super::*;

    type Carts = Arc<Mutex<Vec<Item>>>;

    /// A pod, itself an axum server. All pods know one cart, Ada's.
    fn pod() -> Router {
        async fn items(State(cart): State<Carts>, Path(user): Path<String>) -> Response {
            match &*user {
                "ada" => Json(cart.lock().expect("no panic").clone()).into_response(),
                "eve" => "no JSON".into_response(),
                _ => StatusCode::NOT_FOUND.into_response(),
            }
        }
        async fn put(State(cart): State<Carts>, Json(item): Json<Item>) -> Json<u32> {
            let mut cart = cart.lock().expect("no panic");
            cart.push(item);
            Json(cart.iter().map(|item| item.count).sum())
        }
        let routes = Router::new().route("/{user}", get(items).post(put));
        routes.with_state(Carts::default())
    }

    #[tokio::test]
    async fn json_goes_through_to_the_pods_and_back() -> Result<(), BoxError> {
        let pod = pod();
        let cluster = Cluster::builder()
            .answer(move |_, request| pod.clone().oneshot(request))
            .start()
            .await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let browser =
            Client::builder(format!("http://{}", listener.local_addr()?).parse()?).build()?;
        let server = tokio::spawn(serve(listener, cluster.client().build()?));

        let tea = Item {
            name: "tea".into(),
            count: 2,
        };
        let added = browser.post("/carts/ada").json(&tea).await?;
        assert_eq!(added.json::<u32>().await?, 2);
        let cart = browser.get("/carts/ada").await?.error_for_status()?;
        assert_eq!(cart.json::<Vec<Item>>().await?, [tea]);

        let nobody = browser.get("/carts/bob").await?;
        assert_eq!(nobody.status(), 404);
        let text = nobody.text().await?;
        assert!(
            text.ends_with("answered GET /bob with 404 Not Found"),
            "{text}"
        );

        let broken = browser.get("/carts/eve").await?;
        assert_eq!(broken.status(), 502);
        let text = broken.text().await?;
        assert!(text.contains("is not JSON"), "{text}");
        server.abort();
        Ok(())
    }
}
