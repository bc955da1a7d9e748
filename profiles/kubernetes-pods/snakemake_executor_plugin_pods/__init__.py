"""Snakemake's Kubernetes executor for pods that share a volume: `--executor pods`.

Snakemake finds it where profiles/kubernetes-pods is on PYTHONPATH. The plugin that it extends takes for granted that
pods share no files, for which Snakemake demands a default storage provider.
"""

import shlex
from dataclasses import replace
from pathlib import Path

import snakemake_executor_plugin_kubernetes as plugin
from snakemake_executor_plugin_kubernetes import ExecutorSettings as ExecutorSettings

common_settings = replace(
    plugin.common_settings,
    implies_no_shared_fs=False,
    job_deploy_sources=False,
    auto_deploy_default_storage_provider=False,
)


class Executor(plugin.Executor):
    """A Kubernetes job per job, as the plugin's, in the folder that Snakemake runs in."""

    def __post_init__(self):
        super().__post_init__()
        # the plugin asks for the log of a container's previous start; pods that are never restarted have none, and
        # Kubernetes' answer would end the whole run at the first job that fails
        log = self.kubeapi.read_namespaced_pod_log
        self.kubeapi.read_namespaced_pod_log = lambda **of: log(**{**of, "previous": False})

    def get_job_exec_prefix(self, job):  # noqa: ARG002
        """The pod starts in an empty folder of its own."""
        return f"cd {shlex.quote(str(Path.cwd()))}"
