//! The daemon on a node: a namespace that plays the node, a fabric, and `tapline run` in between.
//!
//! In: the program. Out: what its users would see: pods that reach each other, a node that loses
//! nothing, state that survives, errors with names.
//! Never: runs in the machine's network; see `alone`.

mod adopt;
mod adopt_azure;
#[path = "../alone/mod.rs"]
mod alone;
mod clock;
mod cni;
mod containers;
mod counters;
mod dhcp;
mod faults;
mod handover;
mod install;
mod life;
mod listen;
mod load;
mod look;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../devices/nft.rs"]
mod nft;
mod numbers;
mod package;
#[path = "../page/mod.rs"]
mod page;
mod policy;
mod readme;
mod refused;
mod rescue;
#[path = "../runtime/mod.rs"]
mod runtime;
mod systemd;
mod truth;
mod upgrade;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use control::lab::privilege::PrivateNet;

/// The longest adds 250 pods and kills the daemon twenty times, in a debug build on two cores.
const PATIENCE: Duration = Duration::from_secs(300);

macro_rules! tests {
    ($($module:ident::$name:ident),+ $(,)?) => {
        const TESTS: &[(&str, fn(PrivateNet))] =
            &[$((concat!(stringify!($module), "::", stringify!($name)), $module::$name)),+];
    };
}

tests! {
    adopt::a_bridge_is_adopted_confirmed_and_released,
    adopt::an_adoption_that_nobody_confirms_goes_back,
    adopt::a_release_that_a_crash_cuts_short_goes_on_to_its_end,
    adopt::a_rescue_needs_no_daemon,
    adopt::a_node_that_never_had_a_bridge_is_rescued_too,
    adopt_azure::a_bridge_that_holds_the_nic_is_adopted_and_given_back_by_a_daemon,
    adopt_azure::a_node_without_a_resolver_of_its_own_says_so_and_is_adopted,
    adopt_azure::a_pod_that_came_meanwhile_is_reached_after_a_release,
    handover::no_connection_breaks_and_little_is_missed_under_kubenet,
    handover::no_connection_breaks_and_little_is_missed_under_azure,
    handover::nothing_is_steered_to_a_port_that_is_not_open,
    refused::what_stands_on_a_bridge_or_runs_on_it_is_named,
    refused::notes_that_make_no_sense_are_named_and_stay_as_they_are,
    rescue::a_configuration_at_fault_costs_pods_less_than_five_seconds,
    rescue::a_state_that_makes_no_sense_costs_pods_less_than_five_seconds,
    rescue::so_it_does_under_azure,
    look::tables_show_the_pods_and_json_is_alone,
    look::a_capture_tells_where_each_frame_went_and_why,
    counters::every_answer_keeps_the_law_while_frames_move,
    counters::so_does_every_answer_of_two_workers,
    counters::a_pod_has_no_counters_of_the_one_before_and_no_sum_falls,
    listen::a_listener_sees_both_directions_and_the_host_none,
    listen::a_listener_sees_no_broadcast_where_a_tap_has_one_queue,
    listen::the_rate_is_back_when_nobody_listens_any_more,
    listen::no_copy_reaches_the_host_whoever_takes_the_filter_or_kills_the_daemon,
    listen::nor_where_a_kernel_takes_no_program,
    look::steering_says_what_carries_it,
    look::guards_do_as_the_configuration_says_and_are_shown,
    look::flows_are_listed_with_their_pods,
    look::the_memory_bound_is_told_at_the_start_and_shown,
    life::a_pod_is_added_checked_and_deleted,
    life::the_node_loses_nothing_at_start_reload_stop_and_kill,
    life::nor_where_a_kernel_takes_no_program,
    life::nor_does_a_fast_stream_of_the_nodes_lose_any_by_a_table,
    life::and_little_where_it_takes_no_table_either,
    life::a_bad_configuration_leaves_the_old_one_running_and_no_frame_lost,
    life::tcp_survives_a_kill_and_nothing_is_there_twice,
    life::every_view_tells_of_the_pods,
    systemd::systemd_understands_every_line_of_the_units,
    systemd::no_frame_is_lost_while_systemd_keeps_the_queues,
    upgrade::ten_upgrades_under_traffic_lose_no_frame,
    upgrade::requests_that_come_in_meanwhile_wait,
    upgrade::a_program_that_does_not_take_over_changes_nothing,
    upgrade::a_new_daemon_that_is_killed_leaves_a_working_node,
    upgrade::an_old_daemon_that_is_killed_leaves_a_working_node,
    upgrade::systemd_is_told_who_serves_and_keeps_the_queues_all_the_same,
    load::many_adds_and_dels_with_kills_end_with_exactly_the_right_pods,
    load::an_add_is_quick_beside_110_pods,
    containers::containers_come_reach_each_other_are_checked_and_go_in_both_modes,
    containers::an_add_that_fails_leaves_nothing_and_gc_takes_what_the_runtime_forgot,
    containers::force_address_replaces_the_gateway,
    containers::what_a_configuration_asks_for_is_on_the_devices,
    containers::isolated_containers_reach_the_node_and_others_and_not_each_other,
    containers::macspoofchk_holds_a_pod_to_its_own_mac_whatever_the_guards_say,
    cni::two_hundred_and_fifty_containers_come_and_go_at_once,
    cni::a_runtime_sees_nothing_of_kills_between_its_adds_and_dels,
    truth::an_azure_node_serves_no_add_until_the_wireserver_has_spoken,
    truth::pods_attached_before_are_served_before_the_node_has_spoken,
    truth::a_wireserver_that_is_slow_keeps_no_pod_waiting,
    truth::a_known_node_is_asked_again_and_may_have_more_addresses,
    truth::a_kubenet_node_carries_on_by_what_its_pods_have,
    dhcp::the_node_renews_its_lease_under_pod_load_under_azure,
    dhcp::the_node_renews_its_lease_under_pod_load_under_kubenet,
    policy::a_forward_drop_holds_at_every_moment_under_azure,
    policy::a_forward_drop_holds_at_every_moment_under_kubenet,
    install::the_page_installs_runs_and_takes_off_under_kubenet,
    install::the_page_installs_runs_and_takes_off_under_azure,
    package::an_upgrade_of_the_package_loses_no_frame_and_its_removal_stops_the_daemon,
    readme::what_the_readme_does_on_a_node_is_done,
    clock::clocks_that_jump_between_daemons_cost_no_pod_and_no_address,
    faults::a_state_that_cannot_be_written_is_named_and_costs_no_frame,
    faults::a_full_disk_is_named_and_costs_no_frame,
    faults::a_capture_to_a_full_disk_ends_and_costs_no_frame,
    faults::a_missing_capability_is_named,
    faults::a_device_deleted_behind_our_back_is_made_again_or_named,
    faults::hostile_clients_have_no_effect_on_forwarding,
    faults::a_failed_add_leaves_nothing,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(word) if word == systemd::HEIR => {
            return systemd::become_heir(&arguments.next().expect("a configuration"));
        }
        Some(word) if word == upgrade::FAKE => {
            let mode = arguments.next().expect("a way to take over");
            return upgrade::become_fake(mode.to_str().expect("a word"));
        }
        _ => {}
    }
    alone::main(TESTS, PATIENCE)
}
