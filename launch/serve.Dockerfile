# An image that serves an export:
#   docker build -f launch/serve.Dockerfile -t wpauc-serve .
#   docker run -p 8000:8000 -v "$PWD/model:/model:ro" wpauc-serve
FROM python:3.12-slim
WORKDIR /app
COPY . .
RUN pip install --no-cache-dir --constraint requirements.lock '.[serve]' && useradd --create-home wpauc
USER wpauc
EXPOSE 8000
CMD ["wpauc", "serve", "/model", "--host=0.0.0.0"]
