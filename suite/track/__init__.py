"""Journals into MLflow. Nothing else imports mlflow."""
