//! placeholder
use super::{Env, Rig, Shape, Unbuilt};
/// x
pub fn build(_env: &mut Env, _shape: Shape) -> Result<Rig, Unbuilt> {
    Err("not yet".into())
}
