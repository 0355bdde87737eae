//! The keys of the API model that concern the network, typed and not yet judged.
//!
//! In: a document. Out: every such key with its place. Never: fills in a default; that an
//! absent key stays absent matters, since aks-engine judges before it fills in.

use super::fault::{Place, Placed, Report};
use super::text::{Document, Object, Settings, as_object};

pub(crate) type Text = Option<Placed<String>>;
pub(crate) type Integer = Option<Placed<i64>>;
pub(crate) type Flag = Option<Placed<bool>>;

pub(crate) struct RawModel {
    pub(crate) api_version: Placed<String>,
    pub(crate) orchestrator_type: Text,
    pub(crate) release: Text,
    pub(crate) version: Text,
    pub(crate) kubernetes: RawKubernetes,
    pub(crate) master: Option<RawMaster>,
    /// Where the master profile stands, or should.
    pub(crate) master_place: Place,
    pub(crate) pools: Vec<RawPool>,
    pub(crate) pools_place: Place,
    pub(crate) eth0_mtu: Integer,
    pub(crate) dual_stack: Flag,
    pub(crate) dual_stack_place: Place,
    pub(crate) ipv6_only: Flag,
    pub(crate) azure_stack: bool,
}

pub(crate) struct RawKubernetes {
    pub(crate) place: Place,
    pub(crate) plugin: Text,
    pub(crate) policy: Text,
    pub(crate) mode: Text,
    pub(crate) cluster_subnet: Text,
    pub(crate) service_cidr: Text,
    pub(crate) dns_service_ip: Text,
    pub(crate) docker_bridge_subnet: Text,
    pub(crate) max_pods: Integer,
    pub(crate) runtime: Text,
    pub(crate) proxy_mode: Text,
    pub(crate) load_balancer_sku: Text,
    pub(crate) kubelet: Settings,
    pub(crate) controller_manager: Settings,
    pub(crate) cloud_controller_manager: Settings,
}

pub(crate) struct RawMaster {
    pub(crate) place: Place,
    pub(crate) count: Integer,
    pub(crate) availability: Text,
    pub(crate) subnet_id: Text,
    pub(crate) agent_subnet_id: Text,
    pub(crate) vnet_cidr: Text,
    pub(crate) first_static: Text,
    pub(crate) address_count: Integer,
    pub(crate) kubelet: Settings,
}

pub(crate) struct RawPool {
    pub(crate) place: Place,
    pub(crate) name: Text,
    pub(crate) count: Integer,
    pub(crate) os_type: Text,
    pub(crate) distro: Text,
    pub(crate) availability: Text,
    pub(crate) subnet_id: Text,
    pub(crate) address_count: Integer,
    pub(crate) accelerated: Flag,
    pub(crate) accelerated_windows: Flag,
    pub(crate) node_public_ip: Flag,
    pub(crate) scale_set_name: Text,
    pub(crate) kubelet: Settings,
}

impl RawModel {
    /// Reads what is there. `None` only where there is nothing to go on with.
    pub(crate) fn read(document: &Document, report: &mut Report) -> Option<RawModel> {
        let root = document.root();
        let api_version = root
            .text("apiVersion", report)
            .unwrap_or_else(|| Placed::new(String::new(), root.place_of("apiVersion")));
        if root.find("properties").is_none() {
            report.fault(
                &root.place_of("properties"),
                "missing ContainerService Properties",
            );
            return None;
        }
        let properties = root.object("properties", report)?;
        let empty = |name: &str| Object {
            members: &[],
            place: properties.place_of(name),
        };
        let orchestrator = properties
            .object("orchestratorProfile", report)
            .unwrap_or_else(|| empty("orchestratorProfile"));
        let kubernetes = orchestrator
            .object("kubernetesConfig", report)
            .unwrap_or_else(|| Object {
                members: &[],
                place: orchestrator.place_of("kubernetesConfig"),
            });
        let flags = properties
            .object("featureFlags", report)
            .unwrap_or_else(|| empty("featureFlags"));
        let linux = properties.object("linuxProfile", report);
        let master = properties.object("masterProfile", report);
        Some(RawModel {
            api_version,
            orchestrator_type: orchestrator.text("orchestratorType", report),
            release: orchestrator.text("orchestratorRelease", report),
            version: orchestrator.text("orchestratorVersion", report),
            kubernetes: RawKubernetes::read(&kubernetes, report),
            master: master.map(|master| RawMaster::read(&master, report)),
            master_place: properties.place_of("masterProfile"),
            pools: read_pools(&properties, report),
            pools_place: properties.place_of("agentPoolProfiles"),
            eth0_mtu: linux.and_then(|linux| linux.integer("eth0MTU", report)),
            dual_stack: flags.flag("enableIPv6DualStack", report),
            dual_stack_place: flags.place_of("enableIPv6DualStack"),
            ipv6_only: flags.flag("enableIPv6Only", report),
            azure_stack: is_azure_stack(&properties, report),
        })
    }
}

fn read_pools(properties: &Object<'_>, report: &mut Report) -> Vec<RawPool> {
    properties
        .list("agentPoolProfiles", report)
        .into_iter()
        .filter_map(|(node, place)| as_object(node, place, report))
        .collect::<Vec<_>>()
        .iter()
        .map(|pool| RawPool::read(pool, report))
        .collect()
}

/// A custom cloud without a name of its own is Azure Stack.
fn is_azure_stack(properties: &Object<'_>, report: &mut Report) -> bool {
    let Some(cloud) = properties.object("customCloudProfile", report) else {
        return false;
    };
    let name = cloud
        .object("environment", report)
        .and_then(|environment| environment.text("name", report));
    name.is_none_or(|name| name.value.eq_ignore_ascii_case("AzureStackCloud"))
}

impl RawKubernetes {
    fn read(config: &Object<'_>, report: &mut Report) -> RawKubernetes {
        RawKubernetes {
            place: config.place.clone(),
            plugin: config.text("networkPlugin", report),
            policy: config.text("networkPolicy", report),
            mode: config.text("networkMode", report),
            cluster_subnet: config.text("clusterSubnet", report),
            service_cidr: config.text("serviceCidr", report),
            dns_service_ip: config.text("dnsServiceIP", report),
            docker_bridge_subnet: config.text("dockerBridgeSubnet", report),
            max_pods: config.integer("maxPods", report),
            runtime: config.text("containerRuntime", report),
            proxy_mode: config.text("kubeProxyMode", report),
            load_balancer_sku: config.text("loadBalancerSku", report),
            kubelet: config.settings("kubeletConfig", report),
            controller_manager: config.settings("controllerManagerConfig", report),
            cloud_controller_manager: config.settings("cloudControllerManagerConfig", report),
        }
    }
}

/// The kubelet's options that a profile sets for its own nodes.
fn own_kubelet(profile: &Object<'_>, report: &mut Report) -> Settings {
    profile
        .object("kubernetesConfig", report)
        .map(|config| config.settings("kubeletConfig", report))
        .unwrap_or_default()
}

impl RawMaster {
    fn read(profile: &Object<'_>, report: &mut Report) -> RawMaster {
        RawMaster {
            place: profile.place.clone(),
            count: profile.integer("count", report),
            availability: profile.text("availabilityProfile", report),
            subnet_id: profile.text("vnetSubnetID", report),
            agent_subnet_id: profile.text("agentVnetSubnetID", report),
            vnet_cidr: profile.text("vnetCidr", report),
            first_static: profile.text("firstConsecutiveStaticIP", report),
            address_count: profile.integer("ipAddressCount", report),
            kubelet: own_kubelet(profile, report),
        }
    }
}

impl RawPool {
    fn read(profile: &Object<'_>, report: &mut Report) -> RawPool {
        RawPool {
            place: profile.place.clone(),
            name: profile.text("name", report),
            count: profile.integer("count", report),
            os_type: profile.text("osType", report),
            distro: profile.text("distro", report),
            availability: profile.text("availabilityProfile", report),
            subnet_id: profile.text("vnetSubnetID", report),
            address_count: profile.integer("ipAddressCount", report),
            accelerated: profile.flag("acceleratedNetworkingEnabled", report),
            accelerated_windows: profile.flag("acceleratedNetworkingEnabledWindows", report),
            node_public_ip: profile.flag("enableVMSSNodePublicIP", report),
            scale_set_name: profile.text("vmssName", report),
            kubelet: own_kubelet(profile, report),
        }
    }
}

/// Whether a flag is there and set.
pub(crate) fn is_set(flag: &Flag) -> bool {
    flag.as_ref().is_some_and(|flag| flag.value)
}

/// The text, or blank where there is none: what aks-engine compares and prints.
pub(crate) fn spelled(text: &Text) -> &str {
    text.as_ref().map_or("", |text| text.value.as_str())
}
