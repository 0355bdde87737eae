//! Devices on a real kernel: a test program of its own, one process a test.
//!
//! In: the right to make namespaces. Out: see `alone`, which runs them.
//! Never: runs a test in the machine's network.

mod adopt;
#[path = "../alone/mod.rs"]
mod alone;
mod attach;
mod masquerade;
#[allow(dead_code, reason = "other tests use the rest")]
mod nft;
mod privilege;
mod reaper;
mod services;
mod services_v6;
mod steering;
mod support;
mod table;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use control::lab::privilege::PrivateNet;

/// A test that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// The proof that this process has left the machine's network.
static PRIVATE: Mutex<Option<PrivateNet>> = Mutex::new(None);

macro_rules! tests {
    ($($module:ident::$name:ident),+ $(,)?) => {
        const TESTS: &[alone::Test] = &[$((
            concat!(stringify!($module), "::", stringify!($name)),
            |private| {
                *PRIVATE.lock().expect("one thread") = Some(private);
                $module::$name();
            },
        )),+];
    };
}

tests! {
    adopt::a_bridge_is_adopted_and_given_back_under_traffic,
    adopt::a_bridge_that_holds_the_nodes_nic_gives_its_addresses_back_to_it,
    adopt::a_step_that_fails_leaves_the_bridge_as_it_was,
    adopt::so_it_does_where_the_nodes_nic_hangs_on_the_bridge,
    adopt::without_a_switch_the_pods_are_given_back_all_the_same,
    adopt::a_bridge_that_cannot_be_adopted_is_refused_with_every_reason,
    attach::a_pod_on_a_veth_is_wired_as_specified_and_twice_is_once,
    attach::a_pod_in_use_is_wired_by_a_program_and_by_filters_where_there_is_a_clsact,
    attach::frames_of_a_pod_reach_the_tap_and_those_of_the_tap_the_pod,
    attach::a_frame_without_payload_does_not_escape_the_redirect,
    attach::a_taken_name_is_a_conflict_and_stays_untouched,
    attach::a_pod_whose_eth0_is_the_tap_is_wired_as_specified,
    attach::a_pod_may_have_ipv6_without_duplicate_address_detection,
    attach::the_host_port_is_a_device_of_the_nodes_kernel,
    attach::a_route_of_another_program_is_left_alone,
    attach::the_uplink_steers_frames_for_pods_and_no_others,
    attach::mirrored_arp_replies_arrive_at_the_switch_and_at_the_kernel,
    attach::mirrored_advertisements_arrive_at_the_switch_and_at_the_kernel,
    attach::steering_changes_in_place_and_leaves_others_filters_alone,
    attach::filters_of_another_owner_outlive_ours,
    attach::no_device_of_ours_says_anything_by_itself,
    attach::errors_say_what_was_attempted_where_and_what_the_kernel_says,
    masquerade::what_a_pod_sends_beyond_its_network_bears_the_nodes_address,
    services::services_host_ports_and_masquerade_work_under_azure,
    services::services_host_ports_and_masquerade_work_under_kubenet,
    services_v6::services_host_ports_and_masquerade_work_in_ipv6_under_kubenet,
    services::a_forward_drop_between_pods_of_one_node_holds_under_azure,
    services::a_forward_drop_between_pods_of_one_node_holds_under_kubenet,
    steering::filters_that_are_taken_are_back_within_a_second_and_gone_at_the_end,
    steering::a_keeper_waits_for_a_device_that_is_gone_and_says_so,
    steering::chains_of_policy_agents_are_found,
    steering::chains_of_policy_agents_are_found_in_the_older_tables_too,
    table::every_carrier_steers_as_the_plain_model_says,
    table::a_table_that_is_taken_is_back_within_a_second_and_gone_at_the_end,
    table::a_table_changes_under_traffic_and_no_frame_escapes,
    table::a_table_waits_for_its_device_and_goes_without_it,
    privilege::a_test_runs_outside_the_network_it_was_started_in,
    privilege::a_second_thread_is_refused,
    privilege::what_the_lab_needs_is_found_or_named,
    reaper::a_killed_lab_is_cleared_up_within_a_second,
    reaper::a_reaper_without_a_lab_is_refused,
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    match arguments.first().and_then(|word| word.to_str()) {
        Some(reaper::LAB) => {
            reaper::lab();
            ExitCode::SUCCESS
        }
        Some(control::lab::reaper::COMMAND) => control::lab::reaper::main(&arguments[1..]),
        _ => alone::main(TESTS, PATIENCE),
    }
}
