"""The node's daemons: their command lines and configuration files."""

import json
from typing import Any

from tests.cluster.certificates import config, key, pem
from tests.cluster.cgroups import KUBELET_ROOT
from tests.cluster.places import CONTAINERD, DNS_IP, NODE, NODE_IP, POD_NETWORK, RUN, SERVICE_NETWORK
from tests.cluster.requirements import PLUGINS

FILES = RUN / "etc"
PACKET_QUEUE = 100
METRICS_PORT = 4443
_ETCD = "http://127.0.0.1:2379"
_PEER = "http://127.0.0.1:2380"

CONTAINERD_TOML = f"""
version = 2
root = "{RUN}/containerd"
state = "/run/containerd"
[grpc]
address = "{CONTAINERD}"
[ttrpc]
address = "{CONTAINERD}.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
path = "{RUN}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{{pause}}"
# Negative scores need a capability that a container's root may lack.
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{PLUGINS}"
conf_dir = "{FILES}/cni"
"""

POD_NETWORKING: dict[str, Any] = {
    "cniVersion": "0.4.0",
    "name": "pods",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "ipMasq": False,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "dataDir": f"{RUN}/addresses",
                "ranges": [[{"subnet": POD_NETWORK}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}

KUBELET: dict[str, Any] = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "kind": "KubeletConfiguration",
    "address": NODE_IP,
    "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
    "authorization": {"mode": "AlwaysAllow"},
    "cgroupDriver": "cgroupfs",
    "cgroupRoot": KUBELET_ROOT,
    "failCgroupV1": False,
    "containerRuntimeEndpoint": f"unix://{CONTAINERD}",
    "clusterDNS": [DNS_IP],
    "clusterDomain": "cluster.local",
    "resolvConf": "",
    "failSwapOn": False,
    "oomScoreAdj": 0,
    # A machine's disk may be fuller than a node's should be.
    "evictionHard": {"memory.available": "200Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
    # Garbage collection would remove images that no registry has.
    "imageGCHighThresholdPercent": 100,
    "enforceNodeAllocatable": ["pods"],
    "serializeImagePulls": False,
}

KUBE_PROXY: dict[str, Any] = {
    "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
    "kind": "KubeProxyConfiguration",
    "mode": "iptables",
    "clientConnection": {"kubeconfig": str(config("proxy"))},
    "clusterCIDR": POD_NETWORK,
    "hostnameOverride": NODE,
    "bindAddress": "0.0.0.0",
    "oomScoreAdj": 0,
    # These are the whole machine's, and not ours to change.
    "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    "nodePortAddresses": ["127.0.0.0/8"],
}


def write_files(*, pause: str) -> None:
    """Writes every configuration file."""
    (FILES / "cni").mkdir(parents=True)
    (FILES / "containerd.toml").write_text(CONTAINERD_TOML.format(pause=pause))
    (FILES / "cni" / "10-pods.conflist").write_text(json.dumps(POD_NETWORKING))
    # JSON is YAML.
    (FILES / "kubelet.yaml").write_text(json.dumps(KUBELET))
    (FILES / "kube-proxy.yaml").write_text(json.dumps(KUBE_PROXY))


def options(**values: object) -> list[str]:
    """`data_dir="x"` is `--data-dir=x`."""
    return [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]


def etcd() -> list[str]:
    listen = options(listen_client_urls=_ETCD, advertise_client_urls=_ETCD, listen_peer_urls=_PEER)
    peer = options(initial_advertise_peer_urls=_PEER, initial_cluster=f"default={_PEER}")
    # Nothing here has to survive the machine.
    return ["etcd", f"--data-dir={RUN}/etcd", "--unsafe-no-fsync", "--log-level=warn", *listen, *peer]


def apiserver() -> list[str]:
    accounts = options(
        service_account_key_file=pem("accounts"),
        service_account_signing_key_file=key("accounts"),
        service_account_issuer="https://kubernetes.default.svc",
    )
    # What an aggregated API, such as that of the metrics, trusts the API server by.
    aggregation = options(
        requestheader_client_ca_file=pem("ca"),
        requestheader_allowed_names="front-proxy",
        requestheader_extra_headers_prefix="X-Remote-Extra-",
        requestheader_group_headers="X-Remote-Group",
        requestheader_username_headers="X-Remote-User",
        proxy_client_cert_file=pem("front-proxy"),
        proxy_client_key_file=key("front-proxy"),
        enable_aggregator_routing="true",
    )
    return [
        "kube-apiserver",
        *options(etcd_servers=_ETCD, secure_port=6443, bind_address="0.0.0.0", advertise_address=NODE_IP),
        *options(tls_cert_file=pem("api"), tls_private_key_file=key("api"), client_ca_file=pem("ca")),
        *options(token_auth_file=RUN / "pki" / "tokens.csv", service_cluster_ip_range=SERVICE_NETWORK),
        *options(authorization_mode="Node,RBAC", allow_privileged="true", cert_dir=RUN / "api"),
        *options(enable_admission_plugins="NodeRestriction", kubelet_preferred_address_types="InternalIP"),
        *accounts,
        *aggregation,
    ]


def controllers() -> list[str]:
    return [
        "kube-controller-manager",
        *options(
            kubeconfig=config("controllers"), use_service_account_credentials="true", leader_elect="false"
        ),
        *options(service_account_private_key_file=key("accounts"), root_ca_file=pem("ca")),
        *options(allocate_node_cidrs="true", cluster_cidr=POD_NETWORK, node_cidr_mask_size=24),
        *options(service_cluster_ip_range=SERVICE_NETWORK),
        *options(cluster_signing_cert_file=pem("ca"), cluster_signing_key_file=key("ca")),
    ]


def scheduler() -> list[str]:
    return ["kube-scheduler", *options(kubeconfig=config("scheduler"), leader_elect="false")]


def containerd() -> list[str]:
    return ["containerd", "--config", str(FILES / "containerd.toml")]


def kubelet() -> list[str]:
    own = options(root_dir=RUN / "kubelet", cert_dir=RUN / "kubelet-pki")
    node = options(hostname_override=NODE, node_ip=NODE_IP)
    return ["kubelet", *options(config=FILES / "kubelet.yaml", kubeconfig=config("node")), *node, *own]


def kube_proxy() -> list[str]:
    return ["kube-proxy", *options(config=FILES / "kube-proxy.yaml")]


def network_policies() -> list[str]:
    """Decides on packets that the kernel puts into a queue: each pod's first of a connection."""
    own = options(hostname_override=NODE, nfqueue_id=PACKET_QUEUE, metrics_bind_address="127.0.0.1:9180")
    return ["kube-network-policies", "--disable-nri", *own]


def metrics_server() -> list[str]:
    who = config("metrics")
    return [
        "metrics-server",
        *options(kubeconfig=who, authentication_kubeconfig=who, authorization_kubeconfig=who),
        *options(secure_port=METRICS_PORT, cert_dir=RUN / "metrics-pki", metric_resolution="15s"),
        *options(kubelet_preferred_address_types="InternalIP"),
        # The kubelet's certificate is signed by itself.
        "--kubelet-insecure-tls",
    ]
