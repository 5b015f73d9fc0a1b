"""Which admin call needs which role: one table. What only reads needs `read`; what it does not name needs `admin`."""

from typing import Final

from aiohttp import hdrs

from gateway.admin_keys import Role

# What an operator does with tasks that are there already. Settings, keys and secrets are `admin`'s.
_OPERATE: Final = {
    (hdrs.METH_POST, "/admin/clients/pause"),
    (hdrs.METH_POST, "/admin/clients/resume"),
    (hdrs.METH_POST, "/admin/dead/replay"),
    (hdrs.METH_DELETE, "/admin/dead"),
    (hdrs.METH_DELETE, "/admin/tasks/{task_id}"),
    (hdrs.METH_POST, "/admin/jobs"),
    (hdrs.METH_POST, "/admin/jobs/{job_id}/start"),
    (hdrs.METH_DELETE, "/admin/jobs/{job_id}"),
    (hdrs.METH_POST, "/admin/queues/purge"),
    (hdrs.METH_POST, "/admin/tasks/{task_id}/run"),
    (hdrs.METH_POST, "/admin/tasks/{task_id}/replay"),
}
# A session does what its key may: to log in and out of it every role will do.
_READ: Final = {(hdrs.METH_POST, "/admin/session"), (hdrs.METH_DELETE, "/admin/session")}
_SAFE: Final = {hdrs.METH_GET, hdrs.METH_HEAD}


def needed_role(method: str, route: str) -> Role:
    """What a call needs; ``route`` is its path as it is registered.

    >>> str(needed_role("GET", "/admin/audit")), str(needed_role("PUT", "/admin/clients/set"))
    ('read', 'admin')
    """
    if method in _SAFE or (method, route) in _READ:
        return Role.READ
    return Role.OPERATE if (method, route) in _OPERATE else Role.ADMIN
