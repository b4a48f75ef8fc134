# Shells in this hub. Root administers (conda's base); hub users' terminals work in the environment that notebooks run in.
if [ -x /opt/conda/bin/conda ] || [ -d /opt/conda/envs ]; then
  if [ "$(id -u)" = 0 ]; then
    PATH="/opt/conda/condabin:/opt/conda/envs/jhub/bin:$PATH"
  else
    PATH="/opt/conda/envs/python3/bin:/opt/conda/condabin:$PATH"
  fi
  export PATH
  # conda as a shell function, so that `conda activate` works; interactive shells only, since it costs time
  case $- in
    *i*) [ -n "${BASH_VERSION:-}" ] && [ -r /opt/conda/etc/profile.d/conda.sh ] && . /opt/conda/etc/profile.d/conda.sh ;;
  esac
fi
if [ -r /etc/ssl/certs/ca-certificates.crt ]; then
  export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt
fi
