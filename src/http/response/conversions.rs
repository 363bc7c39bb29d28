//! Bodies of responses that layers and tests make of text and bytes.

use bytes::Bytes;
use http_body_util::Full;

use super::ResponseBody;

impl Default for ResponseBody {
    fn default() -> Self {
        Self::empty()
    }
}

impl From<()> for ResponseBody {
    fn from((): ()) -> Self {
        Self::empty()
    }
}

impl From<Bytes> for ResponseBody {
    fn from(data: Bytes) -> Self {
        Self::new(Full::new(data))
    }
}

impl From<Vec<u8>> for ResponseBody {
    fn from(data: Vec<u8>) -> Self {
        Bytes::from(data).into()
    }
}

impl From<String> for ResponseBody {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static str> for ResponseBody {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}
