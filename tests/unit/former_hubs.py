"""Files of hubs of the former system, written for the tests in the form that its releases 0.5 and 0.6 read."""

from __future__ import annotations

FOLDER = "/home/teach/ananke/containers/algebra"

CONFIG = """
config['image_name'] = 'ananke-base:latest'
config['port'] = 8042
config['memory'] = '12g'
config['cpus'] = 4
config['gpus'] = ['0', '1']
config['podman_args'] = ['--pids-limit -1', '--add-host=lms.example.org:10.0.0.7']
config['volumes'] = []
config['volumes'].append(('/srv/books', '/books'))
"""
BASE = """
c = get_config()
c.JupyterHub.base_url = 'algebra/'
c.Application.log_level = 'WARNING'
"""
SERVERS = """
import sys
c = get_config()
c.JupyterHub.allow_named_servers = False
c.JupyterHub.cleanup_servers = False
c.JupyterHub.concurrent_spawn_limit = 20
c.SystemdSpawner.unit_extra_properties.update({'MemoryMax': '3G', 'CPUQuota': '150%'})
c.JupyterHub.load_roles.append({
    'name': 'culler', 'scopes': ['list:users'], 'services': ['culler-service'],
})
c.JupyterHub.services.append({
    'name': 'culler-service',
    'command': [sys.executable, '-m', 'jupyterhub_idle_culler', '--cull-every=600', f'--timeout={2 * 3600}'],
})
"""
USERS = """
c = get_config()
c.Authenticator.admin_users.add('u17')
c.Authenticator.admin_users.add('ADMIN_USERNAME')
"""
LMS = """
c = get_config()
lms = 'https://lms.example.org'
c.LTI13Authenticator.client_id = ['abc', 'def']
c.LTI13Authenticator.issuer = lms
c.LTI13Authenticator.authorize_url = f'{lms}/mod/lti/auth.php'
c.LTI13Authenticator.jwks_endpoint = lms + '/mod/lti/certs.php'
"""
RTC = """
c = get_config()
public_rtc_rooms = ['Lobby']
private_rtc_rooms = [{'name': 'team 1', 'users': ['u1', 'u2'], 'groups': ['tutors']}]
with open('/opt/install/rtc_config.py') as f:
    exec(f.read())
"""

PLAIN = {
    "config.py": CONFIG,
    "jupyterhub_config.d/00_base.py": BASE,
    "jupyterhub_config.d/10_servers.py": SERVERS,
    "jupyterhub_config.d/20_users.py": USERS,
    "jupyterhub_config.d/30_lms.py": LMS,
}
ROOMS = {**PLAIN, "jupyterhub_config.d/80_rtc.py": RTC}
