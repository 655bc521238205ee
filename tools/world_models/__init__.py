"""The scripts that trained the models in `vtcav_ray/world/assets`. Nothing else imports this room."""
