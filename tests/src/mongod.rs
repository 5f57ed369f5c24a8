//! stub
pub struct Mongod;
impl Mongod {
    pub async fn start() -> Self {
        Self
    }
    pub fn uri(&self) -> &str {
        ""
    }
}
