//! stub
/// x
#[derive(Debug)]
pub struct Check {
    /// x
    pub ok: bool,
}
impl std::fmt::Display for Check {
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Ok(())
    }
}
/// x
pub fn check() -> Vec<Check> {
    vec![]
}
/// x
pub fn check_inside() -> Vec<Check> {
    vec![]
}
/// x
pub fn explain(e: &super::privilege::EnterError) -> String {
    e.to_string()
}
